"""The command line. Reads arguments, calls one function of the floors below, prints.

Every command takes `--home` and `--json` (one JSON document, the last line of standard output),
and exits 0 on success, 2 on a usage error, 1 on failure with one clear sentence on standard error.
Imports are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import BurnishError

if TYPE_CHECKING:
    from app.service import Service, Workspace

app = typer.Typer(
    name="burnish", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="A private chat assistant that gets better from the people who use it.",
)  # fmt: skip
feedback_app = typer.Typer(no_args_is_help=True, help="What people said, and what it can teach.")
release_app = typer.Typer(no_args_is_help=True, help="Which adapter is live.")
loop_app = typer.Typer(no_args_is_help=True, help="The periodic loop.")
app.add_typer(feedback_app, name="feedback")
app.add_typer(release_app, name="release")
app.add_typer(loop_app, name="loop")

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Where all state lives. [default: the platform's data folder]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line.")]


def main() -> None:
    """Entry point: errors of the tree become one sentence and exit status 1."""
    try:
        app()
    except BurnishError as error:
        print(f"burnish: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


@app.command()
def serve(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    as_json: Json = False,
) -> None:
    """Web chat, HTTP API and console. Prints its address when the first answer can be given."""
    from app.serve import serve as run
    from app.settings import load_settings

    settings = load_settings(home=home, host=host, port=port)
    _say(as_json, f"Starting; the state is in {settings.home}")
    status = run(settings, lambda url: _result(as_json, {"url": url}, f"Burnish is ready: {url}"))
    raise typer.Exit(status)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    home: Home = None,
    mode: Annotated[str, typer.Option(help="plain, few-shot or cot.")] = "plain",
    adapter: Annotated[str, typer.Option(help="base, live or a release id.")] = "live",
    quant: Annotated[str | None, typer.Option(help="none, int8 or int4.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    samples: Annotated[
        int, typer.Option(min=1, help="In mode cot: think N times, give the majority's answer.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """One answer on the terminal. Nothing is stored."""
    from app.ask import ask as run
    from app.settings import load_settings

    if temperature is None:
        temperature = load_settings(home=home).temperature
    if samples > 1 and mode != "cot":
        raise typer.BadParameter("needs --mode cot", param_hint="--samples")
    if samples > 1 and temperature == 0:
        raise typer.BadParameter("needs a --temperature above 0", param_hint="--samples")
    with _service(home, quantization=quant) as service:
        answer = run(
            service, question, mode=mode, adapter=adapter, temperature=temperature,
            max_new_tokens=max_new_tokens, seed=seed, samples=samples,
            show=None if as_json else lambda text: print(text, end="", flush=True),  # noqa: T201
        )  # fmt: skip
    _result(as_json, answer, "")


@app.command()
def tune(
    home: Home = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML file; see docs/formats.md.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="A snapshot's id; else one is made.")] = None,
    show: Annotated[int, typer.Option(help="Print N pairs, token by token, and stop.")] = 0,
    as_json: Json = False,
) -> None:
    """Train an adapter on a snapshot; ends with the bundle's id. A killed job is resumed."""
    from app.tune import print_step, show_pairs
    from engine.storage import find_digest

    with _workspace(home) as workspace:
        values, origins = workspace.recipe(recipe)
        digest = (
            find_digest(workspace.home / "snapshots", snapshot)
            if snapshot
            else workspace.loop.snapshot()
        )
        if show:
            show_pairs(workspace, digest, show)
            return
        base = workspace.base
        job = workspace.jobs.start(
            base_name=base.name, base_digest=base.digest, snapshot=digest, recipe=values,
            recipe_origins=origins,
        )  # fmt: skip
        for event in workspace.jobs.wait(job):
            print_step(event)
        bundle = workspace.jobs.result(job)
    _result(as_json, {"bundle": bundle, "snapshot": digest, "job": job}, bundle)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's id, or its beginning.")],
    home: Home = None,
    against: Annotated[str | None, typer.Option(help="A release's id. [default: live]")] = None,
    snapshot: Annotated[str | None, typer.Option(help="[default: the one trained on]")] = None,
    as_json: Json = False,
) -> None:
    """Judge a bundle on held-out pairs and record it as a release."""
    from engine.storage import find_digest, folder_of, read_manifest

    with _service(home) as service:
        workspace = service.workspace
        digest = find_digest(workspace.bundles, bundle)
        chosen = (
            find_digest(workspace.home / "snapshots", snapshot)
            if snapshot
            else str(read_manifest(folder_of(workspace.bundles, digest))["snapshot"])
        )
        other = find_digest(workspace.bundles, against) if against else None
        report = workspace.loop.evaluate(service.engine, service.slots, digest, chosen, other)
    text = (
        f"{report.verdict}: {report.reason}\n"
        f"accuracy {report.incumbent_accuracy:.2f} -> {report.candidate_accuracy:.2f} on"
        f" {report.pairs} pairs; longer wins: {report.longer_wins_accuracy:.2f}"
    )
    _result(as_json, {"bundle": digest, **report.as_dict()}, text)


@app.command()
def demo(
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The whole loop on the embedded model with a scripted user, with before/after figures."""
    from app.demo import run
    from app.settings import load_settings

    settings = load_settings(home=home)
    figures = run(settings, say=lambda text: _say(as_json, text))
    _result(as_json, figures, "")


@app.command()
def doctor(home: Home = None, as_json: Json = False) -> None:
    """What this machine can do, what was chosen and why, what is missing."""
    from app.doctor import describe, examine

    with _workspace(home) as workspace:
        findings = examine(workspace)
    _result(as_json, findings, describe(findings))
    if findings["problems"]:
        raise typer.Exit(1)


@feedback_app.command("stats")
def feedback_stats(home: Home = None, as_json: Json = False) -> None:
    """How many turns, answers, votes, corrections and pairs there are."""
    from feedback_store.pairing import build_pairs

    with _workspace(home) as workspace:
        pairing = build_pairs(workspace.store.evidence())
        counts: dict[str, Any] = {
            **workspace.store.counts(),
            "pairs": len(pairing.pairs),
            "unpaired": pairing.unpaired,
            "set_aside": {reason: n for reason, n in pairing.set_aside.items() if n},
        }
    _result(as_json, counts, "\n".join(f"{key:12} {value}" for key, value in counts.items()))


@feedback_app.command("pairs")
def feedback_pairs(home: Home = None, as_json: Json = False) -> None:
    """The preference pairs of now, each with where it comes from."""
    from feedback_store.pairing import build_pairs

    with _workspace(home) as workspace:
        pairs = build_pairs(workspace.store.evidence()).pairs
    text = "\n\n".join(
        f"[{pair.source}] {pair.prompt[-1].content}\n  chosen:   {pair.chosen}\n"
        f"  rejected: {pair.rejected}\n  events:   {', '.join(map(str, pair.event_ids))}"
        for pair in pairs
    )
    _result(as_json, {"pairs": [pair.as_trl() for pair in pairs]}, text)


@feedback_app.command("snapshot")
def feedback_snapshot(home: Home = None, as_json: Json = False) -> None:
    """Freeze the pairs of now; prints the snapshot's id."""
    from engine.storage import folder_of, read_manifest

    with _workspace(home) as workspace:
        digest = workspace.loop.snapshot()
        manifest = read_manifest(folder_of(workspace.home / "snapshots", digest))
    _result(as_json, {"snapshot": digest, "pairs": manifest["pairs"]}, digest)


@feedback_app.command("import")
def feedback_import(
    file: Annotated[Path, typer.Argument(help="JSON lines in TRL's preference format.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Take over preference pairs from a file, all or none."""
    from feedback_store.formats import import_preferences

    with _workspace(home) as workspace:
        count = import_preferences(workspace.store, file)
    _result(as_json, {"pairs": count, "format": "trl-preference"}, f"{count} pairs imported")


@feedback_app.command("export")
def feedback_export(
    file: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write the pairs of now as JSON lines in TRL's preference format."""
    from feedback_store.formats import export_preferences
    from feedback_store.pairing import build_pairs

    with _workspace(home) as workspace:
        count = export_preferences(build_pairs(workspace.store.evidence()).pairs, file)
    _result(as_json, {"pairs": count, "file": str(file)}, f"{count} pairs written to {file}")


@release_app.command("list")
def release_list(home: Home = None, as_json: Json = False) -> None:
    """All releases, the newest first; the live one is marked."""
    with _workspace(home) as workspace:
        live = workspace.registry.live().bundle
        releases = workspace.registry.list()
    rows = [
        {"release": r.bundle, "verdict": r.report["verdict"], "live": r.bundle == live}
        for r in releases
    ]
    lines = [f"{'*' if live is None else ' '} base"] + [
        f"{'*' if row['live'] else ' '} {row['release']}  {row['verdict']}" for row in rows
    ]
    _result(as_json, {"live": live or "base", "releases": rows}, "\n".join(lines))


@release_app.command("show")
def release_show(
    release: Annotated[str, typer.Argument(help="A release's id, or its beginning.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The gate's report and the training manifest of a release."""
    from engine.storage import find_digest, folder_of, read_manifest

    with _workspace(home) as workspace:
        digest = find_digest(workspace.bundles, release)
        found = workspace.registry.get(digest)
        manifest = read_manifest(folder_of(workspace.bundles, digest))
    report = {key: value for key, value in found.report.items() if key != "scores"}
    document = {"release": digest, "report": report, "manifest": manifest}
    _result(as_json, document, json.dumps(document, indent=2))


@release_app.command("promote")
def release_promote(
    release: Annotated[str, typer.Argument(help="A release's id, or its beginning.")],
    home: Home = None,
    force: Annotated[bool, typer.Option(help="Even if the gate did not find it better.")] = False,
    as_json: Json = False,
) -> None:
    """Make a release live; running servers follow, and this waits for them."""
    from engine.storage import find_digest

    with _workspace(home) as workspace:
        digest = find_digest(workspace.bundles, release)
        live = workspace.releases.promote(digest, force=force)
        servers = workspace.releases.wait_until_served(live)
    _result(as_json, {"live": digest, "servers": servers}, f"live: {digest} ({servers} servers)")


@release_app.command("rollback")
def release_rollback(home: Home = None, as_json: Json = False) -> None:
    """Go back to what was live before; running servers follow, and this waits for them."""
    with _workspace(home) as workspace:
        live = workspace.releases.rollback()
        servers = workspace.releases.wait_until_served(live)
    name = live.bundle or "base"
    _result(as_json, {"live": name, "servers": servers}, f"live: {name} ({servers} servers)")


@release_app.command("export")
def release_export(
    release: Annotated[str, typer.Argument(help="A release's id, or its beginning.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write the base model with the adapter merged in, in Hugging Face layout."""
    from deploy.export import export_merged
    from engine.storage import find_digest

    with _workspace(home) as workspace:
        digest = find_digest(workspace.bundles, release)
        export_merged(workspace.base, workspace.bundles, digest, folder)
    _result(as_json, {"release": digest, "folder": str(folder)}, f"written to {folder}")


@loop_app.command("run")
def loop_run(
    home: Home = None,
    force: Annotated[bool, typer.Option(help="Even without enough new evidence.")] = False,
    as_json: Json = False,
) -> None:
    """One round: snapshot, tune, gate, and promote if better."""
    from app.tune import print_step

    with _workspace(home) as workspace:
        status = workspace.loop.status()
        if not status.would_run and not force:
            _result(as_json, {"ran": False, "reason": status.reason}, f"not run: {status.reason}")
            return
    with _service(home) as service:
        recipe, origins = service.workspace.recipe()
        result = service.workspace.loop.run(
            service.engine, service.slots, recipe, origins, print_step, force=force
        )
    _result(as_json, result.as_dict(), f"{result.bundle}: {result.reason}; {result.promoted=}")


@loop_app.command("status")
def loop_status(home: Home = None, as_json: Json = False) -> None:
    """What the loop would do now, and why."""
    with _workspace(home) as workspace:
        status = workspace.loop.status()
    verb = "would run" if status.would_run else "would not run"
    _result(as_json, status.as_dict(), f"{verb}: {status.reason}")


class _workspace:  # noqa: N801 - used like a function
    """A home folder, opened for one command."""

    def __init__(self, home: Path | None, **overrides: Any) -> None:
        from app.settings import load_settings

        self._settings = load_settings(home=home, **overrides)

    def __enter__(self) -> Workspace:
        from app.service import Workspace

        self._opened = Workspace(self._settings)
        return self._opened

    def __exit__(self, *_: object) -> None:
        self._opened.close()


class _service:  # noqa: N801 - used like a function
    """A home folder with a model in memory, for one command."""

    def __init__(self, home: Path | None, **overrides: Any) -> None:
        self._workspace = _workspace(home, **overrides)

    def __enter__(self) -> Service:
        from app.service import Service

        self._opened = Service(self._workspace.__enter__())
        return self._opened

    def __exit__(self, *_: object) -> None:
        self._opened.engine.close()
        self._workspace.__exit__()


def _say(as_json: bool, text: str) -> None:
    """A line for a person: on standard error where standard output is for a program."""
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def _result(as_json: bool, document: Any, text: str) -> None:
    if as_json:
        print(json.dumps(document), flush=True)  # noqa: T201
    elif text:
        print(text, flush=True)  # noqa: T201
