"""What a trainer's step looks like to whoever waits for it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from engine.errors import EngineFailure
from tests.support.job_events import of_type
from tuning import step_reporter
from tuning.jobs.events import JobEvent, StepDone
from tuning.step_reporter import StepReporter, peak_memory_bytes


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=20, num_input_tokens_seen=0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_ends_the_run(loss: float) -> None:
    events: list[JobEvent] = []
    reporter: Any = StepReporter("dpo", events.append)
    with pytest.raises(EngineFailure, match=f"the loss is {loss} at step 3"):
        reporter.on_log(None, state(3), None, logs={"loss": loss})
    assert events == []


def test_the_time_left_is_judged_by_the_steps_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed at step 10, two steps in 4 seconds: the last 8 steps will take 16."""
    now = 100.0
    monkeypatch.setattr(step_reporter, "time", SimpleNamespace(monotonic=lambda: now))
    events: list[JobEvent] = []
    reporter: Any = StepReporter("dpo", events.append)
    reporter.on_train_begin(None, state(10), None)
    now += 4.0
    logs = {"loss": 0.5, "rewards/chosen": 0.5, "rewards/rejected": 0.25, "rewards/margins": 0.25}
    reporter.on_log(None, state(12), None, logs={**logs, "other": 1.0})
    reporter.on_log(None, state(12), None, logs={"train_loss": 0.5})  # the trainer's summary
    (event,) = events
    assert isinstance(event, StepDone)
    assert min(event.memory_bytes, event.peak_memory_bytes) > 0
    assert replace(event, memory_bytes=0, peak_memory_bytes=0) == StepDone(
        stage="dpo",
        step=12,
        steps=20,
        seconds=4.0,
        eta_seconds=16.0,
        loss=0.5,
        reward_chosen=0.5,
        reward_rejected=0.25,
        reward_margin=0.25,
    )


def test_the_speed_is_that_of_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 tokens in 2 seconds, then 500 more in 10."""
    now = 100.0
    monkeypatch.setattr(step_reporter, "time", SimpleNamespace(monotonic=lambda: now))
    events: list[JobEvent] = []
    reporter: Any = StepReporter("dpo", events.append)
    reporter.on_train_begin(None, state(0), None)
    for number, (seconds, tokens) in enumerate([(2.0, 300.0), (10.0, 800.0)], start=1):
        now += seconds
        reporter.on_log(None, state(number), None, logs={"loss": 0.5, "num_tokens": tokens})
    steps = of_type(events, StepDone)
    assert steps == events
    assert [step.tokens_per_second for step in steps] == [150.0, 50.0]


def test_the_peak_of_memory_stays_after_the_memory_was_given_back() -> None:
    big = np.ones(100_000_000, dtype=np.uint8)
    while_held = peak_memory_bytes()
    assert while_held >= 0.99 * psutil.Process().memory_info().rss  # Linux counts in batches
    del big
    assert peak_memory_bytes() >= 0.99 * while_held
    assert psutil.Process().memory_info().rss < while_held - 90_000_000
