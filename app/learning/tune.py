"""The progress of a tuning run on the terminal: a live line per stage, or plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from engine.units import gib
from tuning.jobs.events import (
    DataRead,
    JobEvent,
    JobStarted,
    SearchDone,
    SearchLeftOut,
    StageLeftOut,
    StepDone,
    TrialScored,
)
from tuning.jobs.processor_time import ProcessorWatch
from tuning.jobs.runner import WAITING, Job

if TYPE_CHECKING:
    from rich.progress import Progress

    from app.workspace import Workspace


def follow(events: Iterable[JobEvent]) -> None:
    """Show a job's events on standard error as they come."""
    if not sys.stderr.isatty():
        for event in events:
            print_step(event)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn()
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, TextColumn("{task.fields[facts]}"), console=console) as progress:
        for event in events:
            _draw(progress, event)


class WaitingNote:
    """Says on standard error, once at a time, that a job waits for a free processor.

    It is called with the job again and again; `pid_of` returns the process of a job.
    """

    def __init__(self, pid_of: Callable[[str], int | None]) -> None:
        self._pid_of = pid_of
        self._watch = ProcessorWatch()
        self._waits = False

    def __call__(self, job: Job) -> None:
        """Look at a running job."""
        waits = self._watch.is_waiting(self._pid_of(job.id))
        if waits and not self._waits:
            print(WAITING, file=sys.stderr, flush=True)  # noqa: T201
        self._waits = waits


def print_step(event: JobEvent) -> None:
    """Print a progress event as one line on standard error."""
    if isinstance(event, StepDone):
        line = f"{event.stage}  step {event.step}/{event.steps}  {facts(event)}"
    else:
        line = _sentence(event)
    if line:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def facts(step: StepDone) -> str:
    """Return the numbers of a step as text: loss, rewards, speed, memory, time left."""
    shown = [f"loss {step.loss:.3f}"]
    if step.reward_accuracy is not None:
        shown.append(f"accuracy {step.reward_accuracy:.2f}")
    if step.reward_margin is not None:
        shown.append(f"margin {step.reward_margin:.3f}")
    if step.tokens_per_second is not None:
        shown.append(f"{step.tokens_per_second:.0f} tokens/s")
    shown += [gib(step.memory_bytes), f"{step.eta_seconds:.0f} s left"]
    return "  ".join(shown)


def _sentence(event: JobEvent) -> str:
    """Describe an event other than a step; "" if it is of no interest to a person."""
    if isinstance(event, JobStarted):
        return f"tuning with {event.threads} thread(s) at priority {event.priority!r}"
    if isinstance(event, TrialScored):
        return (
            f"learning rate {event.learning_rate:g}, step {event.step}:"
            f" loss {event.loss:.3f} on what is held back"
        )
    if isinstance(event, SearchDone):
        return f"chosen: learning rate {event.learning_rate:g}, step {event.step}/{event.steps}"
    if isinstance(event, SearchLeftOut):
        return f"no search: {event.reason}"
    if isinstance(event, StageLeftOut):
        return f"{event.stage} is left out: {event.reason}"
    if isinstance(event, DataRead):
        counts = f"{event.pairs} pairs, {event.answers} answers and {event.lone_judgements} thumbs"
        text = f", {event.blocks} blocks of text" if event.blocks else ""
        return f"{counts} to train on{text}, {event.too_long} too long and left out"
    return ""


def _draw(progress: Progress, event: JobEvent) -> None:
    """Advance the progress bar of the event's stage; each stage has its own bar."""
    if not isinstance(event, StepDone):
        if line := _sentence(event):
            progress.console.print(line)
        return
    bars = {task.description: task.id for task in progress.tasks}
    bar = bars.get(event.stage)
    if bar is None:
        bar = progress.add_task(event.stage, facts="")
    progress.update(bar, completed=event.step, total=event.steps, facts=facts(event))


def show_pairs(workspace: Workspace, snapshot: str, count: int) -> None:
    """Print pairs as the trainer sees them, with the tokens in the loss highlighted."""
    from rich.console import Console
    from rich.text import Text

    from engine.prompts.load import load_renderer
    from feedback_store.snapshots.snapshot import open_snapshot

    renderer = load_renderer(workspace.base.folder)
    console = Console()
    for pair in open_snapshot(workspace.home.snapshots, snapshot).train.pairs[:count]:
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            rendered = renderer.pair(pair.prompt, side.full_text, complete=side.complete)
            line = Text(f"{name}: ", style="bold")
            for token_id, in_loss in zip(rendered.input_ids, rendered.loss_mask, strict=True):
                line.append(renderer.token_text(token_id), "black on green" if in_loss else "dim")
                line.append("|", "dim")
            console.print(line)
