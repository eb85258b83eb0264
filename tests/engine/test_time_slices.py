"""Work in the background takes turns with the steps of running streams, and neither starves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from types import SimpleNamespace

import pytest

from engine import time_slices as module
from engine.time_slices import SLICE_SECONDS, TimeSlices

SOON = 30  # seconds after which a test gives up waiting


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> TimeSlices:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", SOON)
    return TimeSlices()


@pytest.fixture
def every_breath_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_SECONDS", 0)


def until_they_wait(turns: TimeSlices, count: int) -> None:
    """Until `count` threads have a turn or wait for one."""
    deadline = time.monotonic() + SOON
    while len(turns._queue) < count:
        assert time.monotonic() < deadline, f"{len(turns._queue)} of {count} came"
        time.sleep(0)


def in_a_turn(turns: TimeSlices, action: Callable[[], None]) -> None:
    with turns.slice():
        action()


class TestOrder:
    def test_who_asks_first_is_served_first(self, turns: TimeSlices) -> None:
        served: list[int] = []
        with ThreadPoolExecutor(5) as pool, turns.slice():
            for number in range(5):
                pool.submit(in_a_turn, turns, partial(served.append, number))
                until_they_wait(turns, number + 2)
            assert served == []
        assert served == [0, 1, 2, 3, 4]

    @pytest.mark.usefixtures("every_breath_is_due")
    def test_a_step_waits_for_one_piece_and_a_piece_for_one_step(self, turns: TimeSlices) -> None:
        done: list[str] = []

        def step() -> None:
            done.append("step")
            until_they_wait(turns, 2)  # the background asks for its next turn during the step

        with ThreadPoolExecutor(1) as pool, turns.slices() as yield_to_engine:
            for number in range(4):
                pool.submit(in_a_turn, turns, step)
                until_they_wait(turns, 2)
                done.append(f"piece {number}")
                yield_to_engine()
        assert done == ["piece 0", "step", "piece 1", "step", "piece 2", "step", "piece 3", "step"]

    def test_short_pieces_share_a_turn_until_it_has_been_long(
        self, turns: TimeSlices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, stepped = [0.0], threading.Event()
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
        with ThreadPoolExecutor(1) as pool, turns.slices() as yield_to_engine:
            pool.submit(in_a_turn, turns, stepped.set)
            until_they_wait(turns, 2)
            for _ in range(2):  # 0.4 and 0.8 of a piece's time
                now[0] += 0.4 * SLICE_SECONDS
                yield_to_engine()
                assert not stepped.is_set()
            now[0] += 0.4 * SLICE_SECONDS
            yield_to_engine()
            assert stepped.is_set()

    @pytest.mark.usefixtures("every_breath_is_due")
    def test_nobody_waits_where_nobody_else_works(self, turns: TimeSlices) -> None:
        with turns.slices() as yield_to_engine:
            for _ in range(1000):
                yield_to_engine()
        with turns.slice():
            pass

    @pytest.mark.usefixtures("every_breath_is_due")
    def test_of_four_threads_at_once_one_works_and_all_come_to_their_end(
        self, turns: TimeSlices
    ) -> None:
        working: list[int] = []
        most: list[int] = []

        def work(_: object = None) -> None:
            working.append(1)
            time.sleep(0)  # lets the others run
            most.append(len(working))
            working.pop()

        def steps() -> None:
            for _ in range(500):
                in_a_turn(turns, work)

        def pieces() -> None:
            with turns.slices() as yield_to_engine:
                for _ in range(500):
                    work()
                    yield_to_engine()

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(job) for job in (steps, pieces, steps, pieces)]
            for future in futures:
                future.result(timeout=SOON)
        assert len(most) == 2000
        assert max(most) == 1


class TestFaults:
    @pytest.mark.parametrize("kind", [TimeSlices.slice, TimeSlices.slices])
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_work_that_fails_passes_its_turn_on(
        self,
        turns: TimeSlices,
        kind: Callable[[TimeSlices], AbstractContextManager[object]],
        error: type[BaseException],
    ) -> None:
        stepped = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            with pytest.raises(error), kind(turns):
                pool.submit(in_a_turn, turns, stepped.set)
                until_they_wait(turns, 2)
                raise error
            assert stepped.wait(SOON)

    @pytest.mark.usefixtures("every_breath_is_due")
    def test_who_is_interrupted_while_waiting_holds_nobody_up(
        self, turns: TimeSlices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

        with turns.slice():
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(threading.Event, "wait", interrupted)
                in_a_turn(turns, pytest.fail)
            assert len(turns._queue) == 1
        in_a_turn(turns, lambda: None)

    def test_nobody_waits_for_ever_for_one_that_hangs(
        self, turns: TimeSlices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ThreadPoolExecutor(2) as pool:
            with turns.slice():  # hangs, in a step or on a disk
                monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
                with turns.slice():
                    assert len(turns._queue) == 2
                monkeypatch.setattr(module, "PATIENCE_SECONDS", SOON)
                # Having gone on without a turn, it has none to pass on
                patient: Future[None] = pool.submit(in_a_turn, turns, lambda: None)
                until_they_wait(turns, 2)
                assert not turns._queue[1].is_set()
                assert not patient.done()
            patient.result(timeout=SOON)
