"""`burnish tune`: start a job, list jobs, cancel or resume one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import HomeOption, Json, open_workspace, print_result, show_progress
from engine.errors import InvalidInput
from engine.storage import find_digest, folder_of, read_manifest, short_id
from engine.units import gib

if TYPE_CHECKING:
    from app.learning.training_plan import TrainingPlan
    from app.workspace import Workspace
    from tuning.jobs.runner import Job
    from tuning.recipe import Recipe

STEP_FIELDS = ("stage", "step", "steps", "loss", "eta_seconds")
A_JOB = "A job's id, or its beginning."


def tune(
    home: HomeOption = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML file; see docs/formats.md.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="A snapshot's id; else one is made.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="A release to go on from, or live; else a fresh adapter."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value of the recipe: joint.epochs=2. Repeatable."),
    ] = None,
    plan: Annotated[
        bool, typer.Option(help="Print what the training would take, and start nothing.")
    ] = False,
    show: Annotated[int, typer.Option(help="Print N pairs, token by token, and stop.")] = 0,
    listed: Annotated[bool, typer.Option("--list", help="All jobs, the newest first.")] = False,
    cancel: Annotated[str | None, typer.Option(help=f"Stop a running job. {A_JOB}")] = None,
    resume: Annotated[str | None, typer.Option(help=f"Go on with a stopped job. {A_JOB}")] = None,
    log: Annotated[
        str | None, typer.Option(help=f"Print what a job's process wrote. {A_JOB}")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an adapter on a snapshot; ends with the bundle's id. A killed job is resumed."""
    if sum((listed, plan, *(each is not None for each in (cancel, resume, log)))) > 1:
        hint = "--list, --plan, --cancel, --resume, --log"
        raise typer.BadParameter("only one at a time", param_hint=hint)
    with open_workspace(home) as workspace:
        if listed:
            _list(workspace, as_json)
        elif cancel is not None:
            _cancel(workspace, _find(workspace, cancel), as_json)
        elif log is not None:
            _print_log(workspace, _find(workspace, log), as_json)
        elif plan:
            _print_plan(workspace, recipe, changes or (), as_json)
        elif show:
            from app.learning.tune import show_pairs

            show_pairs(workspace, _snapshot(workspace, snapshot), show)
        else:
            job = (
                workspace.jobs.resume(_find(workspace, resume))
                if resume is not None
                else _start(workspace, recipe, changes or (), snapshot, start)
            )
            _follow(workspace, job, as_json)


def _print_plan(
    workspace: Workspace, recipe: Path | None, changes: Sequence[str], as_json: bool
) -> None:
    """Print the plan of a training: warnings, stages, time and memory."""
    from app.learning.training_plan import plan_training

    with show_progress("Reading the examples", as_json=as_json):
        plan = plan_training(workspace, _recipe(workspace, recipe, changes)[0])
    print_result(as_json, plan.as_dict(), "\n".join(plan_lines(plan)))


def plan_lines(plan: TrainingPlan) -> list[str]:
    """Return the plan of a training as lines of text: evidence, stages, time, memory, notes."""
    lines = [f"{plan.pairs} pairs to train on, {plan.heldout_pairs} held out"]
    lines += [
        f"{stage.name}: {stage.rows} rows, {stage.steps} steps, {stage.tokens:,} tokens"
        for stage in plan.run.stages
    ]
    source = (
        f"as measured in job {short_id(plan.speed.job)}"
        if plan.speed.job
        else "by a short measurement of this processor, without attention: expect up to twice"
    )
    speed = plan.speed.tokens_per_second
    return [
        *lines,
        f"time: about {plan.seconds:,.0f} s at {speed:,.0f} tokens/s, {source}",
        f"memory: {gib(plan.memory_bytes)} of {gib(plan.free_bytes)} free",
        *(f"note: {warning}" for warning in plan.warnings),
    ]


def _print_log(workspace: Workspace, job: str, as_json: bool) -> None:
    text = workspace.jobs.output(job)
    print_result(as_json, {"job": job, "log": text}, text)


def _recipe(
    workspace: Workspace, recipe: Path | None, changes: Sequence[str]
) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe that was asked for, with its changes."""
    from tuning.recipe import change_recipe
    from tuning.recipe_form import read_changes

    return change_recipe(recipe or workspace.settings.recipe, read_changes(changes))


def _start(
    workspace: Workspace,
    recipe: Path | None,
    changes: Sequence[str],
    snapshot: str | None,
    start: str | None,
) -> str:
    from tuning.trainability import require_trainable

    values, origins = _recipe(workspace, recipe, changes)
    if start is not None:
        from tuning.start_adapter import recipe_from

        values, origins = recipe_from(values, origins, _bundle(workspace, start))
    base = workspace.base
    require_trainable(base.folder, values)
    reads = any(method.example_kinds for method in values.stages.values())
    digest = _snapshot(workspace, snapshot, may_be_empty=not reads)
    if reads:
        _note_few_pairs(workspace, digest)
    return workspace.jobs.start(
        base_name=base.name,
        base_digest=base.digest,
        snapshot=digest,
        recipe=values,
        recipe_origins=origins,
    )


def _note_few_pairs(workspace: Workspace, snapshot: str) -> None:
    """Say on standard error where a training is hardly worth trying."""
    from deploy.rounds.trigger import FEW_PAIRS

    counts = read_manifest(folder_of(workspace.home.snapshots, snapshot)).get("counts", {})
    pairs = sum(kinds.get("pairs", 0) for kinds in counts.values())
    if pairs < FEW_PAIRS:
        print(  # noqa: T201
            f"{pairs} pairs are few: {FEW_PAIRS} make a first training worth trying",
            file=sys.stderr,
        )


def _follow(workspace: Workspace, job: str, as_json: bool) -> None:
    """Show the job's progress until it ends. Ctrl-C ends the display, not the job."""
    from app.learning.tune import WaitingNote, follow

    try:
        follow(workspace.jobs.wait(job, look=WaitingNote(workspace.jobs.pid)))
    except KeyboardInterrupt:
        print(f"the job goes on; `burnish tune --cancel {short_id(job)}` ends it", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from None
    bundle = workspace.jobs.result(job)
    snapshot = workspace.jobs.get(job).snapshot
    print_result(as_json, {"bundle": bundle, "snapshot": snapshot, "job": job}, bundle)


def _cancel(workspace: Workspace, job: str, as_json: bool) -> None:
    """Stop the job and wait for its end, which may differ from "cancelled"."""
    workspace.jobs.cancel(job)
    for _ in workspace.jobs.wait(job):
        pass
    state = workspace.jobs.get(job).state
    print_result(as_json, {"job": job, "state": state}, state)


def _list(workspace: Workspace, as_json: bool) -> None:
    jobs = workspace.jobs.list()
    waiting = _waiting_job(workspace, jobs)
    documents = [_document(workspace, job, waiting=job.id == waiting) for job in jobs]
    lines = [
        f"{short_id(d['job'])}  {job.described(waiting=d['waiting']):<11}  {_progress(d):<14}"
        f"  {d['error'] or d['bundle'] or ''}"
        for job, d in zip(jobs, documents, strict=True)
    ]
    print_result(as_json, {"jobs": documents}, "\n".join(lines) or "no tuning jobs yet")


def _waiting_job(workspace: Workspace, jobs: Sequence[Job]) -> str | None:
    """Return the job that runs and waits for a free processor; takes a moment if one runs."""
    from tuning.jobs.processor_time import LEAST_SECONDS, ProcessorWatch

    running = next((job.id for job in jobs if job.state == "running"), None)
    if running is None:
        return None
    watch, pid = ProcessorWatch(), workspace.jobs.pid(running)
    watch.is_waiting(pid)
    time.sleep(LEAST_SECONDS)
    return running if watch.is_waiting(pid) else None


def _document(workspace: Workspace, job: Job, *, waiting: bool) -> dict[str, Any]:
    """Return a job and its current step as a document."""
    from tuning.jobs.events import StepDone

    events = workspace.jobs.events(job.id)
    last = next((event for event in reversed(events) if isinstance(event, StepDone)), None)
    return {
        "job": job.id,
        "state": job.state,
        "stopping": job.stopping,
        "waiting": waiting,
        "snapshot": job.snapshot,
        "bundle": job.bundle,
        "error": job.error,
        "started_at": job.started_at,
        **{name: getattr(last, name, None) for name in STEP_FIELDS},
    }


def _progress(document: dict[str, Any]) -> str:
    if document["step"] is None:
        return "no step yet"
    return f"{document['stage']} {document['step']}/{document['steps']}"


def _find(workspace: Workspace, job: str) -> str:

    return find_digest(workspace.home.jobs, job)


def _bundle(workspace: Workspace, release: str) -> str:
    """Return the bundle of a release; `live` is the live one."""

    if release != "live":
        return find_digest(workspace.home.bundles, release)
    live = workspace.registry.live().bundle
    if live is None:
        raise InvalidInput("the base model is live: there is no adapter to go on from")
    return live


def _snapshot(workspace: Workspace, snapshot: str | None, *, may_be_empty: bool = False) -> str:

    if snapshot is None:
        return workspace.take_snapshot(may_be_empty=may_be_empty)
    return find_digest(workspace.home.snapshots, snapshot)
