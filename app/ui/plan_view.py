"""The plan of a training as HTML: what it reads, what it takes, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from app.learning.training_plan import TrainingPlan
from app.texts import say, translated
from app.ui.fact_table import Fact, fact_table
from engine.storage import short_id
from engine.units import gib, mib

PLAN_CSS = """
.plan .lead {font-size: 16px; margin: 8px 0}
.plan .warnings {margin: 8px 0; padding: 8px 16px 8px 32px; border-inline-start: 3px solid #b45309;
  list-style: disc}
"""


def plan_html(plan: TrainingPlan, language: str, *, may_go_live: bool = False) -> str:
    """Return the plan: a sentence, the warnings, then the figures.

    `may_go_live`: the training is a part of a round, which may make its release live.
    """
    lead = say(
        "console.plan.lead",
        language,
        pairs=plan.pairs,
        heldout=plan.heldout_pairs,
        time=duration(plan.seconds, language),
    )
    if not may_go_live:
        lead += f" {say('console.plan.stays', language)}"
    warnings = "".join(f"<li>{escape(translated(w, language))}</li>" for w in plan.warnings)
    listed = f'<ul class="warnings">{warnings}</ul>' if warnings else ""
    table = fact_table(_facts(plan, language), "plan-facts")
    return f'<div class="plan" id="plan"><p class="lead">{escape(lead)}</p>{listed}{table}</div>'


def duration(seconds: float, language: str) -> str:
    """Return a time in seconds, minutes or hours, whichever says it in few digits."""
    for unit, size in (("hours", 5400), ("minutes", 90)):
        if seconds >= size:
            count = seconds / (3600 if unit == "hours" else 60)
            return say(f"console.plan.{unit}", language, count=f"{count:.0f}")
    return say("console.plan.seconds", language, count=f"{max(1, seconds):.0f}")


def _facts(plan: TrainingPlan, language: str) -> Iterator[Fact]:
    for stage in plan.run.stages:
        figures = {"rows": stage.rows, "steps": stage.steps, "tokens": f"{stage.tokens:,}"}
        value = say("console.plan.stage", language, **figures)
        yield Fact(stage.name, value, say(f"console.sections.{stage.name}", language))
    yield Fact(
        say("console.plan.time", language),
        duration(plan.seconds, language),
        _speed_words(plan, language),
    )
    needed, free = gib(plan.memory_bytes), gib(plan.free_bytes)
    uses = [
        f"{translated(use.name, language)} {mib(use.nbytes)}"
        for use in plan.memory
        if use.nbytes >= 2**20
    ]
    yield Fact(
        say("console.plan.memory", language),
        say("console.plan.of_free", language, needed=needed, free=free),
        say("common.separator", language).join(uses),
    )


def _speed_words(plan: TrainingPlan, language: str) -> str:
    """Return where the estimate comes from, and what it leaves out."""
    speed = f"{plan.speed.tokens_per_second:,.0f}"
    key = "probed" if plan.speed.job is None else "measured"
    words = say(f"console.plan.{key}", language, speed=speed, job=short_id(str(plan.speed.job)))
    if plan.run.search_factor > 1:
        words += " " + say("console.plan.search", language, factor=f"{plan.run.search_factor:.1f}")
    return words
