"""`burnish release` and `burnish loop`: which adapter is live, and the periodic loop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.accounts import COMMAND_LINE
from app.cli.common import (
    HomeOption,
    Json,
    open_service,
    open_workspace,
    print_result,
    show_progress,
)
from engine.storage import find_digest, folder_of, read_manifest, short_id
from engine.units import local_minute

if TYPE_CHECKING:
    from app.workspace import Workspace
    from deploy.loop import LoopResult
    from tuning.evaluation.statistics import Interval

release_app = typer.Typer(no_args_is_help=True, help="Which adapter is live.")
loop_app = typer.Typer(no_args_is_help=True, help="The periodic loop.")

ROUNDS_SHOWN = 5
Reason = Annotated[str, typer.Option(help="Why; it is recorded. Asked for at a terminal.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")]


@release_app.command("list")
def release_list(home: HomeOption = None, as_json: Json = False) -> None:
    """List all releases, the newest first; the live one is marked."""
    with open_workspace(home) as workspace:
        live = workspace.registry.live().bundle
        releases = workspace.registry.list()
    rows = [
        {
            "release": r.bundle,
            "verdict": r.report["verdict"],
            "origin": r.origin,
            "live": r.bundle == live,
        }
        for r in releases
    ]
    lines = [f"{'*' if live is None else ' '} base"] + [
        f"{'*' if row['live'] else ' '} {row['release']}  {row['origin']:<8}  {row['verdict']}"
        for row in rows
    ]
    print_result(as_json, {"live": live or "base", "releases": rows}, "\n".join(lines))


@release_app.command("show")
def release_show(
    release: Annotated[str, typer.Argument(help="A release's id, or its beginning.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Tell the story of a release: what it learnt from, its verdicts, who made it live and why."""
    from deploy.releases.story import event_documents, tell_story
    from engine.errors import UnknownId

    with open_workspace(home) as workspace:
        digest = _find_release(workspace, release)
        found, events = workspace.registry.get(digest), workspace.registry.events(digest)
        names = {each.id: each.name for each in workspace.accounts.list()}
        try:
            manifest = read_manifest(folder_of(workspace.home.bundles, digest))
        except UnknownId:  # an erasure has deleted it; the record stays
            manifest = None
    document = {
        "release": digest,
        "origin": found.origin,
        "report": dict(found.report),
        "manifest": manifest,
        "events": event_documents(events),
    }
    lines = tell_story(events, digest, lambda actor: names.get(actor, actor))
    print_result(as_json, document, "\n".join([digest, *lines]))


@release_app.command("lineage")
def release_lineage(home: HomeOption = None, as_json: Json = False) -> None:
    """Show whether it is getting better: each release against the one before it and the base."""
    with open_workspace(home) as workspace:
        trend = workspace.release_trend()
    lines = [
        f"{'*' if p.is_live else ' '} {p.number:>3}  {short_id(p.release)}  {p.verdict or '':<15}"
        f"  on the one before {_gain(p.gain)}  on the base {_gain(p.gain_on_base)}"
        f"  {'' if p.seconds is None else f'{p.seconds:g} s'}"
        for p in trend.releases
    ]
    lines += [
        f"{each.day}  {short_id(each.adapter) if each.adapter else 'base':<12}"
        f"  {each.up} up, {each.down} down"
        for each in trend.thumbs
    ]
    print_result(as_json, trend.as_dict(), "\n".join(lines) or "no releases yet")


def _gain(gain: Interval | None) -> str:
    return "-" if gain is None else f"{gain.estimate:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def _find_release(workspace: Workspace, release: str) -> str:
    """The id of a release by its beginning, also of one whose bundle an erasure has deleted."""
    from engine.errors import UnknownId

    try:
        return find_digest(workspace.home.bundles, release)
    except UnknownId:
        beginning = f"sha256:{release.removeprefix('sha256:')}"
        known = [e for e in workspace.registry.record().releases if e.startswith(beginning)]
        if len(known) != 1:
            raise
        return known[0]


@release_app.command("import")
def release_import(
    folder: Annotated[Path, typer.Argument(help="A folder that peft's save_pretrained wrote.")],
    home: HomeOption = None,
    trust_base: Annotated[
        bool, typer.Option(help="Although the adapter names another base model.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an adapter that other software trained a release, which the gate is yet to judge.

    LLaMA-Factory, Unsloth, peft and Alpaca-LoRA write such folders. Nothing is unpickled, and what
    cannot be served is refused by its name before anything is written.
    """
    from deploy.releases.importing import import_adapter

    with open_workspace(home) as workspace:
        found = import_adapter(
            folder,
            workspace.base,
            workspace.home.bundles,
            workspace.registry,
            trust_base=trust_base,
        )
    document = {
        "release": found.bundle,
        "origin": "imported",
        "claimed_base": found.claimed_base,
        "verdict": found.verdict,
    }
    advice = (
        f"{found.bundle}\n{found.verdict}; `burnish evaluate {short_id(found.bundle)}` judges it"
    )
    print_result(as_json, document, advice)


@release_app.command("promote")
def release_promote(
    release: Annotated[str, typer.Argument(help="A release's id, or its beginning.")],
    home: HomeOption = None,
    force: Annotated[
        bool, typer.Option(help="Even if the gate did not find it better; needs a reason.")
    ] = False,
    reason: Reason = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make a release live and wait until running servers serve it."""

    with open_workspace(home) as workspace:
        digest = find_digest(workspace.home.bundles, release)
        workspace.registry.get(digest)
        reason = _confirmed(f"make {short_id(digest)} everybody's model", reason, yes)
        live = workspace.releases.promote(digest, force=force, reason=reason, actor=COMMAND_LINE)
        workspace.accounts.audit.record(COMMAND_LINE, "promote", digest)
        servers = workspace.releases.wait_until_served(live)
    print_result(
        as_json, {"live": digest, "servers": servers}, f"live: {digest} ({servers} servers)"
    )


@release_app.command("rollback")
def release_rollback(
    home: HomeOption = None, reason: Reason = "", yes: Yes = False, as_json: Json = False
) -> None:
    """Return to the release that was live before and wait until running servers serve it."""
    with open_workspace(home) as workspace:
        target = workspace.registry.rollback_target(workspace.registry.live())
        name = short_id(target) if target else "the base model"
        reason = _confirmed(f"return everybody to {name}", reason, yes)
        live = workspace.releases.rollback(reason=reason, actor=COMMAND_LINE)
        workspace.accounts.audit.record(COMMAND_LINE, "roll back", live.bundle or "base")
        servers = workspace.releases.wait_until_served(live)
    name = live.bundle or "base"
    print_result(as_json, {"live": name, "servers": servers}, f"live: {name} ({servers} servers)")


def _confirmed(act: str, reason: str, yes: bool) -> str:
    """Ask a person at a terminal whether and why; returns the reason. A script is not asked."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"{act}?", abort=True, err=True)
        reason = reason or typer.prompt("why", default="", show_default=False, err=True)
    return reason


@release_app.command("export")
def release_export(
    release: Annotated[
        str, typer.Argument(help="A release's id, or its beginning; 'base' is the base model.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
    export_format: Annotated[
        str, typer.Option("--format", help="peft, merged, gguf, gguf-lora, ollama, or chatglm.")
    ] = "merged",
    quantization: Annotated[
        str | None, typer.Option(help="Of gguf and ollama: f16, q8_0, or q4_1.  [default: f16]")
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Write a release for other software, with a model card.

    What a format cannot hold is refused before anything is written.
    """
    from deploy.export.facts import read_facts
    from deploy.export.formats import export_release

    with open_workspace(home) as workspace:
        paths = workspace.home
        digest = None if release == "base" else find_digest(paths.bundles, release)
        facts = read_facts(workspace.registry, paths.bundles, paths.snapshots, digest)
        export_release(
            workspace.base,
            paths.bundles,
            digest,
            folder,
            export_format,
            quantization=quantization,
            facts=facts,
        )
    document = {"release": digest or "base", "folder": str(folder), "format": export_format}
    print_result(as_json, document, f"written to {folder}")


@loop_app.command("run")
def loop_run(
    home: HomeOption = None,
    force: Annotated[bool, typer.Option(help="Even without enough new evidence.")] = False,
    plan: Annotated[
        bool, typer.Option(help="Print what the round would do and take, and start nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run one round: snapshot, tune, gate, canary, and promote if better; or the rest of one."""
    if plan:
        _print_round_plan(home, as_json)
        return
    from app.learning.open_webui import sync_before_round
    from app.learning.tune import print_step
    from deploy.loop import RoundRequest

    with open_workspace(home) as workspace:
        sync_before_round(workspace)
        status = workspace.loop_status()
        goes_on = workspace.loop.unfinished is not None
        if not (status.would_run or force or goes_on):
            print_result(
                as_json, {"ran": False, "reason": status.reason}, f"not run: {status.reason}"
            )
            return
    with open_service(home) as service:
        recipe, origins = service.workspace.loop_recipe()
        promotes = service.workspace.settings.loop_promotes
        request = RoundRequest(recipe, origins, forced=force, promotes=promotes, actor=COMMAND_LINE)
        result = service.workspace.loop.run(service.engine, service.slots, request, print_step)
    print_result(as_json, result.as_dict(), _round_summary(result))


def _round_summary(result: LoopResult) -> str:
    summary = f"{result.outcome}: {result.reason}"
    if result.outcome == "waits":
        summary = f"round {result.round} goes on later: {result.reason}"
    elif result.bundle is not None:
        summary = f"{result.bundle}: {summary}"
    if result.since_event:
        summary += "; without the older statements, since people want something else now"
    return summary


def _print_round_plan(home: Path | None, as_json: bool) -> None:
    """Print the plan of a round's training, and what becomes of a release that is better."""
    from app.cli.tuning import plan_lines
    from app.learning.training_plan import plan_training
    from app.loop_settings import better_release
    from app.texts import DEFAULT, say

    with open_workspace(home) as workspace:
        with show_progress("Reading the examples", as_json=as_json):
            plan = plan_training(workspace, workspace.loop_recipe()[0])
        after = better_release(workspace.settings)
    lines = [*plan_lines(plan), say(f"console.canary.after_{after}", DEFAULT)]
    print_result(as_json, {**plan.as_dict(), "better_release": after}, "\n".join(lines))


@loop_app.command("status")
def loop_status(home: HomeOption = None, as_json: Json = False) -> None:
    """Show what the loop would do now, and why, and what came of its last rounds."""
    with open_workspace(home) as workspace:
        status = workspace.loop_status()
        plan = workspace.loop.plan(enabled=workspace.settings.loop_enabled)
        rounds = workspace.loop.rounds()[:ROUNDS_SHOWN]
    verb = "would run" if status.would_run else "would not run"
    lines = [f"{verb}: {status.reason}", f"now: {plan.action}, {plan.reason}"]
    if plan.until is not None:
        lines[-1] += f", until {local_minute(plan.until)}"
    lines += [f"round {r.number}, {local_minute(r.begun_at)}: {r.summary}" for r in rounds]
    document = {
        **status.as_dict(),
        "plan": plan.as_dict(),
        "rounds": [each.as_dict() for each in rounds],
    }
    print_result(as_json, document, "\n".join(lines))
