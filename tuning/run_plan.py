"""The plan of a training run before it starts: its rows, tokens and time by stage.

The rows are those that the run itself will read of the same snapshot. Knows no trainer; imports no
torch, but to measure a processor.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.models.presets import Preset
from tuning.jobs.events import JobEvent, StepDone
from tuning.methods.base import Method
from tuning.methods.joint import JointRecipe
from tuning.recipe import Recipe
from tuning.rows import TrainingData

# Each pass of a frozen model takes two operations for each weight and token (Kaplan et al. 2020,
# table 1): one forward, and one backward to the input, since the weights themselves do not learn
OPERATIONS = 4
FIRST_STEPS = 2  # of a stage, which are slower: not counted


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage: its rows, the steps of its run, and the tokens that all of them process."""

    name: str
    rows: int
    steps: int
    tokens: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The stages of a run, the examples that are too long, and the stages without rows.

    `search_factor`: the search of a learning rate takes at most so many times as long as one run.
    """

    stages: tuple[StagePlan, ...]
    too_long: int
    left_out: tuple[str, ...]
    search_factor: float

    def seconds(self, tokens_per_second: float) -> float:
        """The time of all steps at a speed, without loading the model."""
        tokens = sum(stage.tokens for stage in self.stages)
        return tokens * self.search_factor / tokens_per_second


def plan_run(recipe: Recipe, data: TrainingData) -> RunPlan:
    """Plan the run of a recipe on the data that it reads."""
    rows = {name: method.rows(data) for name, method in recipe.stages.items()}
    stages = [_stage_plan(name, recipe.stages[name], rows[name]) for name in rows if rows[name]]
    rates = recipe.search.rates
    return RunPlan(
        tuple(stages),
        len(set(data.too_long)),
        tuple(f"{name} needs {recipe.stages[name].needs}" for name in rows if not rows[name]),
        1 + math.log2(rates) / 2 if rates else 1.0,  # `tuning.successive_halving.halve`
    )


def measured_speed(events: Iterable[JobEvent]) -> float | None:
    """The median tokens a second of a job's steps; None for a job that counted none."""
    speeds = [
        event.tokens_per_second
        for event in events
        if isinstance(event, StepDone)
        and event.step > FIRST_STEPS
        and event.tokens_per_second is not None
    ]
    return statistics.median(speeds) if speeds else None


def probed_speed(model: Preset, seconds_of_product: float, numbers: int) -> float:
    """The tokens a second that a processor allows, from one measured product.

    `seconds_of_product`: of a product and of the gradient of its input, `numbers` weights for each
    of its tokens in all. An upper bound: attention and the optimizer's step are left out.
    """
    weights = model.linear_weights + model.vocabulary * model.hidden_size
    operations_per_second = OPERATIONS * numbers / seconds_of_product
    return operations_per_second / (OPERATIONS * weights)


def _stage_plan(name: str, method: Method, rows: Sequence[Mapping[str, Any]]) -> StagePlan:
    epochs = method.epochs_of(len(rows)) if isinstance(method, JointRecipe) else method.epochs
    steps = math.ceil(epochs * len(rows) / method.batch_size)
    tokens = sum(_tokens(row) for row in rows)
    return StagePlan(name, len(rows), steps, round(epochs * tokens))


def _tokens(row: Mapping[str, Any]) -> int:
    """The tokens of a row; a prompt that two answers share is computed once."""
    ids = ("prompt_ids", "completion_ids", "chosen_ids", "rejected_ids", "input_ids", "prompt")
    return sum(len(row[column]) for column in ids if column in row)
