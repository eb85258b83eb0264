"""The plan that is shown before a training starts: evidence, time, memory, warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.learning.training_plan import plan_training
from app.settings import Settings
from app.texts import translated
from app.ui.plan_view import duration, plan_html
from app.workspace import Workspace
from engine.errors import InvalidInput
from engine.prompts.modes import PromptTemplate
from tests.app.learning.test_resumed_jobs import pairs
from tests.helpers import make_bundle
from tuning.jobs.events import StepDone
from tuning.jobs.progress import ProgressLog
from tuning.jobs.runner import Job
from tuning.recipe import read_recipe


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """A home without an engine."""
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


def say_pairs(workspace: Workspace, count: int) -> None:
    workspace.store.add_imported(pairs(count), PromptTemplate("plain", "", "", ()), "ann")


def test_four_pairs_are_warned_of_in_words_in_both_languages(workspace: Workspace) -> None:
    say_pairs(workspace, 4)
    plan = plan_training(workspace, read_recipe("auto"))
    assert plan.pairs + plan.heldout_pairs == 4
    few, held_out = plan.warnings
    assert few == "4 pairs are few: 20 make a first training worth trying"
    assert held_out.endswith("the gate asks for 8: it will say that there is not enough data")
    assert translated(few, "zh") == "只有 4 个偏好对：有 20 个才值得第一次训练"
    for warning in plan.warnings:
        assert translated(warning, "zh") != warning
        assert warning in plan_html(plan, "en")
    assert "Nothing goes live by it" in plan_html(plan, "en")
    assert "Nothing goes live" not in plan_html(plan, "en", may_go_live=True)  # of a round


def test_the_time_comes_of_a_short_measurement_where_no_job_tells(workspace: Workspace) -> None:
    say_pairs(workspace, 40)
    plan = plan_training(workspace, read_recipe("sft-dpo"))
    assert [stage.name for stage in plan.run.stages] == ["sft", "dpo"]
    assert plan.speed.job is None
    assert plan.seconds == plan.run.seconds(plan.speed.tokens_per_second)
    assert 0 < plan.memory_bytes < plan.free_bytes
    assert plan.warnings == ()
    assert "short measurement" in plan_html(plan, "en")
    assert plan.as_dict()["seconds"] == plan.seconds


def test_the_time_comes_of_an_earlier_job_on_the_same_model(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_pairs(workspace, 40)
    recipe, jobs = read_recipe("sft-dpo"), workspace.jobs
    mine = Job("sha256:" + "7" * 64, "done", "", None, None, 0.0, base_digest=workspace.base.digest)
    other = replace(mine, id="sha256:" + "8" * 64, base_digest="sha256:another")
    values: dict[str, Any] = {"stage": "sft", "steps": 9, "seconds": 1, "eta_seconds": 1, "loss": 1}
    for job, speed in ((mine, 50.0), (other, 5000.0)):
        jobs.folder(job.id).mkdir()
        log = ProgressLog(jobs.folder(job.id) / "progress.jsonl")
        log(StepDone(step=3, tokens_per_second=speed, **values))
    monkeypatch.setattr(jobs, "list", lambda: [other, mine])
    monkeypatch.setattr(jobs, "recipe", lambda _: recipe.as_dict())
    plan = plan_training(workspace, recipe)
    assert (plan.speed.tokens_per_second, plan.speed.job) == (50.0, mine.id)
    tokens = sum(stage.tokens for stage in plan.run.stages)
    assert plan.seconds == tokens / 50
    assert "as measured in job 777777777777" in plan_html(plan, "en")


def test_unchanged_data_is_said_before_the_start(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_pairs(workspace, 40)
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    workspace.registry.add(bundle, {"verdict": "not better"})
    monkeypatch.setattr(workspace.jobs, "find_done", lambda *_: bundle)
    (warning,) = plan_training(workspace, read_recipe("auto")).warnings
    assert warning.startswith(f"nothing has changed since release {bundle[7:19]} was trained")


def test_what_stands_in_the_way_is_said_before_the_start(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_pairs(workspace, 40)
    running = SimpleNamespace(id="", state="running", base_digest="")
    monkeypatch.setattr(workspace.jobs, "list", lambda: [cast(Job, running)])
    monkeypatch.setattr(workspace.jobs, "recipe", lambda _: {})
    monkeypatch.setattr("tuning.device_memory.free_memory", lambda: (1000, 10**9))
    plan = plan_training(workspace, read_recipe("auto"))
    assert plan.warnings == (
        "the memory that is free now does not suffice",
        "another tuning job runs: one runs at a time",
    )


def test_a_recipe_that_finds_nothing_is_refused_with_the_reason(workspace: Workspace) -> None:
    say_pairs(workspace, 40)
    with pytest.raises(InvalidInput, match="nothing to train on: kto needs lone judgements"):
        plan_training(workspace, read_recipe("kto"))


def test_a_time_is_said_in_few_digits() -> None:
    said = [duration(seconds, "en") for seconds in (0.2, 47, 89, 90, 600, 5399, 5400, 36_000)]
    assert said == ["1 s", "47 s", "89 s", "2 min", "10 min", "90 min", "2 h", "10 h"]
