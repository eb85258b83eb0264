"""What a trainer's step looks like to whoever waits for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import EngineFailure
from tuning import step_reporter
from tuning.progress import ProgressLog, read_progress
from tuning.step_reporter import StepReporter


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=20)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_ends_the_run(loss: float) -> None:
    events: list[dict[str, Any]] = []
    reporter: Any = StepReporter("dpo", events.append)
    with pytest.raises(EngineFailure, match=f"the loss is {loss} at step 3"):
        reporter.on_log(None, state(3), None, logs={"loss": loss})
    assert events == []


def test_the_time_left_is_judged_by_the_steps_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed at step 10, two steps in 4 seconds: the last 8 steps will take 16."""
    now = 100.0
    monkeypatch.setattr(step_reporter, "time", SimpleNamespace(monotonic=lambda: now))
    events: list[dict[str, Any]] = []
    reporter: Any = StepReporter("dpo", events.append)
    reporter.on_train_begin(None, state(10), None)
    now += 4.0
    logs = {"loss": 0.5, "rewards/margins": 0.25, "other": 1.0}
    reporter.on_log(None, state(12), None, logs=logs)
    reporter.on_log(None, state(12), None, logs={"train_loss": 0.5})  # the trainer's summary
    (event,) = events
    assert event.pop("memory_bytes") > 0
    assert event == {
        "event": "step", "stage": "dpo", "step": 12, "steps": 20, "seconds": 4.0,
        "eta_seconds": 16.0, "loss": 0.5, "reward_margin": 0.25,
    }  # fmt: skip


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Any) -> None:
    path = tmp_path / "progress.jsonl"
    assert read_progress(path) == []
    log = ProgressLog(path)
    log({"event": "one"})
    log({"event": "two"})
    path.write_text(path.read_text()[:-8])
    assert [event["event"] for event in read_progress(path)] == ["one"]
