"""The facts about a tuning job as lines of text: its progress, what taught it, and its search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.texts import say, translated
from engine.storage import short_id
from engine.units import gib
from tuning.jobs.events import (
    JobEvent,
    JobStarted,
    SearchDone,
    SearchLeftOut,
    StepDone,
    TrialScored,
)
from tuning.jobs.runner import Job
from tuning.methods.joint_rows import ROW_KINDS


def job_facts(job: Job, events: Sequence[JobEvent], language: str, *, waiting: bool = False) -> str:
    """Return the facts about a job, one per line."""

    def line(key: str, **values: object) -> str:
        return say(f"console.job.{key}", language, **values)

    begun = next((e for e in reversed(events) if isinstance(e, JobStarted)), None)
    steps = last_steps(events)
    lines = [
        line("id", id=short_id(job.id)),
        line("state", state=translated(job.described(waiting=waiting), language)),
    ]
    if begun:
        priority = translated(begun.priority, language)
        lines.append(line("threads", threads=begun.threads, priority=priority))
    if steps:
        lines += _step_lines(steps[-1], language)
    lines += _search_lines(events, language)
    if job.bundle:
        lines.append(line("bundle", bundle=short_id(job.bundle)))
    if job.error:
        lines.append(line("error", error=translated(job.error, language)))
    return "\n".join(lines)


def last_steps(events: Sequence[JobEvent]) -> list[StepDone]:
    """Return the last event of each step: a resumed job repeats steps after its checkpoint."""
    by_place = {(e.stage, e.step): e for e in events if isinstance(e, StepDone)}
    return list(by_place.values())


def _step_lines(last: StepDone, language: str) -> Iterator[str]:
    """Yield the newest step's progress, speed and memory, and the part of each kind of evidence."""
    yield say(
        "console.job.step",
        language,
        stage=last.stage,
        step=last.step,
        steps=last.steps,
        seconds=f"{last.eta_seconds:.0f}",
    )
    if last.tokens_per_second is not None:
        yield say("console.job.speed", language, speed=f"{last.tokens_per_second:.0f}")
    now, peak = gib(last.memory_bytes), gib(last.peak_memory_bytes)
    yield say("console.job.memory", language, now=now, peak=peak)
    for kind in ROW_KINDS:
        loss, share = getattr(last, f"{kind}_loss"), getattr(last, f"{kind}_gradient_share")
        if loss is not None and share is not None:
            values = {"loss": f"{loss:.3f}", "share": f"{share:.0%}"}
            yield say(f"console.job.{kind}", language, **values)


def _search_lines(events: Sequence[JobEvent], language: str) -> Iterator[str]:
    """Yield each scored run of the search, by learning rate and step, and the choice."""
    trials = {(e.learning_rate, e.step): e for e in events if isinstance(e, TrialScored)}
    for event in trials.values():
        accuracy = event.reward_accuracy
        yield say(
            "console.job.trial",
            language,
            rate=f"{event.learning_rate:g}",
            step=event.step,
            loss=f"{event.loss:.3f}",
            accuracy="-" if accuracy is None else f"{accuracy:.2f}",
        )
    for each in events:
        if isinstance(each, SearchDone):
            rate = f"{each.learning_rate:g}"
            yield say("console.job.search", language, rate=rate, step=each.step, steps=each.steps)
        elif isinstance(each, SearchLeftOut):
            yield translated(each.reason, language)
