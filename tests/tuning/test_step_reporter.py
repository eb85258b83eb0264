"""What a trainer's step looks like to whoever waits for it."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from tensorboardX.proto.event_pb2 import Event

from engine.errors import EngineFailure
from tuning import step_reporter
from tuning.progress import ProgressLog, ProgressTail, TensorBoardLog, read_progress
from tuning.step_reporter import StepReporter, peak_memory_bytes


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=20, num_input_tokens_seen=0)


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
    logs = {"loss": 0.5, "rewards/chosen": 0.5, "rewards/rejected": 0.25, "rewards/margins": 0.25}
    reporter.on_log(None, state(12), None, logs={**logs, "other": 1.0})
    reporter.on_log(None, state(12), None, logs={"train_loss": 0.5})  # the trainer's summary
    (event,) = events
    assert event.pop("memory_bytes") > 0
    assert event.pop("peak_memory_bytes") > 0
    assert event == {
        "event": "step",
        "stage": "dpo",
        "step": 12,
        "steps": 20,
        "seconds": 4.0,
        "eta_seconds": 16.0,
        "loss": 0.5,
        "reward_chosen": 0.5,
        "reward_rejected": 0.25,
        "reward_margin": 0.25,
    }


def test_the_speed_is_that_of_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 tokens in 2 seconds, then 500 more in 10."""
    now = 100.0
    monkeypatch.setattr(step_reporter, "time", SimpleNamespace(monotonic=lambda: now))
    events: list[dict[str, Any]] = []
    reporter: Any = StepReporter("dpo", events.append)
    reporter.on_train_begin(None, state(0), None)
    for step, (seconds, tokens) in enumerate([(2.0, 300.0), (10.0, 800.0)], start=1):
        now += seconds
        reporter.on_log(None, state(step), None, logs={"loss": 0.5, "num_tokens": tokens})
    assert [event["tokens_per_second"] for event in events] == [150.0, 50.0]


def test_the_peak_of_memory_stays_after_the_memory_was_given_back() -> None:
    big = np.ones(100_000_000, dtype=np.uint8)
    while_held = peak_memory_bytes()
    assert while_held >= 0.99 * psutil.Process().memory_info().rss  # Linux counts in batches
    del big
    assert peak_memory_bytes() >= 0.99 * while_held
    assert psutil.Process().memory_info().rss < while_held - 90_000_000


def test_each_number_of_each_step_is_a_curve_in_tensorboards_files(tmp_path: Any) -> None:
    with TensorBoardLog(tmp_path) as board:
        board({"event": "data", "pairs": 3})
        for step, loss in ((1, 0.75), (2, 0.5)):
            board(
                {
                    "event": "step",
                    "stage": "dpo",
                    "step": step,
                    "steps": 2,
                    "seconds": 1.0,
                    "eta_seconds": 0.0,
                    "loss": loss,
                    "reward_margin": 0.25,
                }
            )
    (file,) = tmp_path.iterdir()
    assert curves(file) == {
        "dpo/loss": [(1, 0.75), (2, 0.5)],
        "dpo/reward_margin": [(1, 0.25), (2, 0.25)],
    }


def curves(file: Any) -> dict[str, list[tuple[int, float]]]:
    """What an event file holds: records of length, checksum, message and checksum."""
    found: dict[str, list[tuple[int, float]]] = {}
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        message = Event.FromString(data[at + 12 : at + 12 + length])
        for value in message.summary.value:
            found.setdefault(value.tag, []).append((message.step, value.simple_value))
        at += 12 + length + 4
    return found


def test_who_follows_a_progress_file_reads_each_event_once(tmp_path: Any) -> None:
    log, tail = ProgressLog(tmp_path / "progress.jsonl"), ProgressTail(tmp_path / "progress.jsonl")
    assert tail.read() == []
    log({"event": "one"})
    assert [event["event"] for event in tail.read()] == ["one"]
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"event": "tw')
    assert tail.read() == []
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('o"}\n')
    assert [event["event"] for event in tail.read()] == ["two"]


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Any) -> None:
    path = tmp_path / "progress.jsonl"
    assert read_progress(path) == []
    log = ProgressLog(path)
    log({"event": "one"})
    log({"event": "two"})
    path.write_text(path.read_text()[:-8])
    assert [event["event"] for event in read_progress(path)] == ["one"]
