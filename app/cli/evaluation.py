"""`burnish evaluate`: judge a bundle, record the verdict, and say where the evidence is."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.common import HomeOption, Json, open_service, print_result, show_progress
from app.cli.judging import Endpoint, EndpointModel, endpoint_judge, is_endpoint


def evaluate_bundle(
    bundle: Annotated[str, typer.Argument(help="A bundle's id, or its beginning.")],
    home: HomeOption = None,
    against: Annotated[str | None, typer.Option(help="A release's id. [default: live]")] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(help="[default: the one trained on; for an imported adapter, a new one]"),
    ] = None,
    ask_judge: Annotated[
        bool, typer.Option("--judge", help="Let an AI compare answers; decides nothing.")
    ] = False,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    as_json: Json = False,
) -> None:
    """Judge a bundle on held-out pairs and fixed prompts, and record it as a release.

    With --judge the local base model compares candidate and incumbent answer by answer, or the
    server that --endpoint and --model name; what it reads is fixed prompts and answers to them.
    """
    from engine.storage import find_digest, folder_of, read_manifest
    from tuning.evaluation.report import JSON_FILE, PAGE_FILE
    from tuning.judge import EngineJudge

    remote = is_endpoint(endpoint, model)
    with open_service(home, as_json=as_json) as service:
        workspace = service.workspace
        digest = find_digest(workspace.home.bundles, bundle)
        trained_on = read_manifest(folder_of(workspace.home.bundles, digest))["snapshot"]
        chosen = (
            find_digest(workspace.home.snapshots, snapshot)
            if snapshot
            else trained_on or workspace.take_snapshot(may_be_empty=True)
        )
        other = find_digest(workspace.home.bundles, against) if against else None
        ai_judge = (
            endpoint_judge(workspace, endpoint, model)
            if remote
            else EngineJudge(service.engine)
            if ask_judge
            else None
        )
        with show_progress("Loading the adapters", as_json=as_json) as say:
            judged = workspace.loop.judging.evaluate(
                service.engine, service.slots, digest, chosen, other, ai_judge=ai_judge, say=say
            )
    report, files = judged.gate, {name: judged.folder / name for name in (JSON_FILE, PAGE_FILE)}
    text = (
        f"{report.verdict}: {report.reason}\n"
        f"accuracy {report.incumbent_accuracy:.2f} -> {report.candidate_accuracy:.2f} on"
        f" {report.pairs} pairs; longer wins: {report.longer_wins_accuracy:.2f}\n"
        f"evidence: {files[JSON_FILE]}\nto look at: {files[PAGE_FILE]}"
    )
    written = {name: str(path) for name, path in files.items()}
    print_result(as_json, {"bundle": digest, **report.as_dict(), "files": written}, text)
