"""The plan of a run: rows, steps, tokens and time, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from engine.models.presets import presets
from tuning.jobs.events import JobStarted, StepDone
from tuning.methods.dpo import DpoRecipe
from tuning.methods.joint import JointRecipe
from tuning.methods.kto import KtoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import SearchRecipe
from tuning.rows import TokenizedPairs, TrainingData
from tuning.run_plan import StagePlan, measured_speed, plan_run, probed_speed

# A prompt of 3 tokens, answers of 4 and of 5: a pair has 12, its chosen answer with its prompt 7
ROW = {"prompt_ids": [1] * 3, "chosen_ids": [2] * 4, "rejected_ids": [3] * 5}


def pairs(count: int) -> TrainingData:
    rows = tuple({**ROW, "chosen_ids": [2, 2, 2, 10 + number]} for number in range(count))
    return TrainingData(TokenizedPairs(rows, too_long=("a", "a", "b")))


def test_a_stage_has_the_steps_and_tokens_of_its_epochs() -> None:
    recipe = Recipe(sft=SftRecipe(epochs=2, batch_pairs=4), dpo=DpoRecipe(epochs=1, batch_pairs=5))
    plan = plan_run(recipe, pairs(10))
    assert plan.stages == (
        StagePlan("sft", rows=10, steps=5, tokens=2 * 10 * 7),
        StagePlan("dpo", rows=10, steps=2, tokens=10 * 12),
    )
    assert (plan.too_long, plan.left_out, plan.search_factor) == (2, (), 1.0)
    assert plan.seconds(tokens_per_second=26) == 10.0  # 260 tokens


def test_the_joint_method_reads_little_data_more_often() -> None:
    joint = JointRecipe(epochs=3, batch_rows=4, least_steps=24, most_epochs=8)
    recipe = Recipe(
        joint=joint, sft=SftRecipe(epochs=0), dpo=DpoRecipe(epochs=0), search=SearchRecipe(rates=4)
    )
    plan = plan_run(recipe, pairs(16))  # 24 steps of 4 rows are six epochs of 16
    assert plan.stages == (StagePlan("joint", rows=16, steps=24, tokens=6 * 16 * 12),)
    assert plan.search_factor == 2.0  # of four rates: 1 + log2(4) / 2


def test_a_stage_without_rows_is_left_out_and_named() -> None:
    recipe = Recipe(sft=SftRecipe(epochs=1), dpo=DpoRecipe(epochs=0), kto=KtoRecipe(epochs=1))
    plan = plan_run(recipe, pairs(4))
    assert [stage.name for stage in plan.stages] == ["sft"]
    assert plan.left_out == ("kto needs lone judgements",)


def step(number: int, speed: float | None) -> StepDone:
    values: dict[str, Any] = {"stage": "sft", "steps": 9, "seconds": 1, "eta_seconds": 1, "loss": 1}
    return StepDone(step=number, tokens_per_second=speed, **values)


def test_the_speed_of_a_job_is_the_median_of_its_steps_but_the_first() -> None:
    events = [JobStarted(pid=1, threads=1, priority="idle"), step(1, 5), step(2, 9)]
    assert measured_speed(events) is None
    assert measured_speed([*events, step(3, 100), step(4, 300), step(5, 120)]) == 120
    assert measured_speed([step(3, None)]) is None


def test_a_measured_product_gives_the_speed_of_all_weights() -> None:
    model = presets()["smollm2-135m-instruct"]
    weights = model.linear_weights + model.vocabulary * model.hidden_size
    # 1000 tokens of all weights in 10 s
    assert probed_speed(model, 10.0, 1000 * weights) == pytest.approx(100)
