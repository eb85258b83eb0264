"""`burnish evaluate`: judge a bundle, record the verdict, and say where the evidence is."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.common import Home, Json, finish, running


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's id, or its beginning.")],
    home: Home = None,
    against: Annotated[str | None, typer.Option(help="A release's id. [default: live]")] = None,
    snapshot: Annotated[str | None, typer.Option(help="[default: the one trained on]")] = None,
    as_json: Json = False,
) -> None:
    """Judge a bundle on held-out pairs and fixed prompts, and record it as a release."""
    from engine.storage import find_digest, folder_of, read_manifest
    from tuning.evaluation.report import JSON_FILE, PAGE_FILE

    with running(home) as service:
        workspace = service.workspace
        digest = find_digest(workspace.bundles, bundle)
        chosen = (
            find_digest(workspace.home / "snapshots", snapshot)
            if snapshot
            else str(read_manifest(folder_of(workspace.bundles, digest))["snapshot"])
        )
        other = find_digest(workspace.bundles, against) if against else None
        judged = workspace.loop.evaluate(service.engine, service.slots, digest, chosen, other)
    report, files = judged.gate, {name: judged.folder / name for name in (JSON_FILE, PAGE_FILE)}
    text = (
        f"{report.verdict}: {report.reason}\n"
        f"accuracy {report.incumbent_accuracy:.2f} -> {report.candidate_accuracy:.2f} on"
        f" {report.pairs} pairs; longer wins: {report.longer_wins_accuracy:.2f}\n"
        f"evidence: {files[JSON_FILE]}\nto look at: {files[PAGE_FILE]}"
    )
    written = {name: str(path) for name, path in files.items()}
    finish(as_json, {"bundle": digest, **report.as_dict(), "files": written}, text)
