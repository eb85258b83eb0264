"""A job's events on disk: the progress file and TensorBoard's files."""

from __future__ import annotations

import struct
from typing import Any

from tensorboardX.proto.event_pb2 import Event

from tuning.jobs.events import BundlePublished, ReferencesRead, StepDone
from tuning.jobs.progress import ProgressLog, ProgressTail, TensorBoardLog


def test_each_number_of_each_step_is_a_curve_in_tensorboards_files(tmp_path: Any) -> None:
    with TensorBoardLog(tmp_path) as board:
        board(ReferencesRead(rows=3, cached=0))
        for number, loss in ((1, 0.75), (2, 0.5)):
            board(step(number, loss=loss, reward_margin=0.25))
    (file,) = tmp_path.iterdir()
    assert curves(file) == {
        "dpo/memory_bytes": [(1, 0.0), (2, 0.0)],
        "dpo/peak_memory_bytes": [(1, 0.0), (2, 0.0)],
        "dpo/loss": [(1, 0.75), (2, 0.5)],
        "dpo/reward_margin": [(1, 0.25), (2, 0.25)],
    }


def step(number: int, *, loss: float, reward_margin: float) -> StepDone:
    return StepDone(
        stage="dpo",
        step=number,
        steps=2,
        seconds=1.0,
        eta_seconds=0.0,
        loss=loss,
        reward_margin=reward_margin,
    )


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
    log(BundlePublished(bundle="one"))
    assert tail.read() == [BundlePublished(bundle="one")]
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"event": "bund')
    assert tail.read() == []
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('le", "bundle": "two"}\n')
    assert tail.read() == [BundlePublished(bundle="two")]


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Any) -> None:
    path = tmp_path / "progress.jsonl"
    assert ProgressTail(path).read() == []
    log = ProgressLog(path)
    log(BundlePublished(bundle="one"))
    log(BundlePublished(bundle="two"))
    path.write_text(path.read_text()[:-8])
    assert ProgressTail(path).read() == [BundlePublished(bundle="one")]
