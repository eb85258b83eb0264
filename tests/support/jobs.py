"""Tuning jobs: a quick recipe, and a worker that trains nothing."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import Conflict
from engine.models.catalogue import BaseModel
from tests.support.waiting import wait_until
from tuning.jobs.runner import JobRunner
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import AdapterRecipe

# With the 13 training pairs of `snapshot_of(16)`: 4 steps of SFT, 24 of DPO; checkpoints at 10, 20
TINY = Recipe(
    adapter=AdapterRecipe(rank=4, alpha=8),
    sft=SftRecipe(epochs=1, batch_pairs=4, learning_rate=0.01),
    dpo=DpoRecipe(epochs=6, batch_pairs=4, learning_rate=0.01),
    max_sequence_tokens=128,
)


DPO_STEPS = 24


WORKER = """#!/bin/sh
# In place of `python -m tuning.jobs.worker JOB_FOLDER`: says its pid, then works for a minute
echo $$ > "$3/pid"
exec sleep 60
"""


def start(
    runner: JobRunner, snapshot: str, recipe: Recipe = TINY, base: BaseModel | None = None
) -> str:
    return runner.start(
        base_name=base.name if base else "base",
        base_digest=base.digest if base else "sha256:base",
        snapshot=snapshot,
        recipe=recipe,
        recipe_origins={"seed": "default"},
    )


def when_free(starts: Callable[[], str]) -> str:
    """Start once the last worker's process has gone, which is a moment after its job has ended."""

    def attempt() -> str | None:
        try:
            return starts()
        except Conflict:
            return None

    return str(wait_until(attempt))


def pid_of(runner: JobRunner, job: str) -> int:
    path = runner.folder(job) / "pid"
    return int(wait_until(lambda: path.is_file() and path.read_text().strip()))


def end(runner: JobRunner, job: str) -> None:
    """Cancel a played job, wait for its end, and forget the pid it noted."""
    pid_of(runner, job)
    runner.cancel(job)
    wait_until(lambda: runner.get(job).state != "running")
    (runner.folder(job) / "pid").unlink()
