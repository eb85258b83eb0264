"""Whether a job waits for a free processor: by hand from clocks, and of this very process."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tuning.jobs import processor_time
from tuning.jobs.processor_time import ProcessorReading, ProcessorWatch, read_clocks, was_starved


def reading(at: float, worked: float, idle: float, pid: int = 7) -> ProcessorReading:
    return ProcessorReading(pid, at, worked, idle)


@pytest.mark.parametrize(
    ("worked", "idle", "starved"),
    [
        (0.2, 0.4, True),  # 2% of a processor, and none was free: 28 s in 22 minutes is as much
        (0.2, 9.0, False),  # a processor was free: it waits for a disk or for a CUDA device
        (2.4, 0.4, True),
        (2.6, 0.4, False),  # a quarter of a processor, beside a chat that takes the rest
        (19.0, 0.0, False),
    ],
)
def test_a_job_is_starved_where_it_works_little_and_no_processor_is_free(
    worked: float, idle: float, starved: bool
) -> None:
    assert was_starved(reading(100, 5, 50), reading(110, 5 + worked, 50 + idle)) is starved


def test_a_process_that_sleeps_waits_for_no_processor() -> None:
    asleep = replace(reading(110, 5.2, 50.4), runnable=False)
    assert not was_starved(reading(100, 5, 50), asleep)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> list[ProcessorReading]:
    """The readings to come."""
    coming: list[ProcessorReading] = []
    monkeypatch.setattr(processor_time, "read_clocks", lambda pid: coming.pop(0))
    return coming


def test_a_watch_compares_with_some_seconds_ago(clocks: list[ProcessorReading]) -> None:
    watch = ProcessorWatch()
    clocks += [reading(0, 0, 0), reading(0.1, 0, 0), reading(2, 0.1, 0.1), reading(4, 2.0, 0.1)]
    assert [watch.is_waiting(7) for _ in range(4)] == [False, False, True, False]


def test_another_process_is_judged_by_its_own_clocks(clocks: list[ProcessorReading]) -> None:
    watch = ProcessorWatch()
    clocks += [reading(0, 90, 0), reading(2, 0, 0, pid=8), reading(4, 2, 0, pid=8)]
    assert not any(watch.is_waiting(pid) for pid in (7, 8, 8))


def test_the_clocks_of_this_process_go_on_and_those_of_none_are_not_read() -> None:
    before = read_clocks(os.getpid())
    sum(range(3_000_000))
    after = read_clocks(os.getpid())
    assert before is not None
    assert after is not None
    assert after.worked >= before.worked > 0
    assert after.runnable  # it reads its own state
    assert read_clocks(2**22 + 1) is None
    assert not ProcessorWatch().is_waiting(None)
