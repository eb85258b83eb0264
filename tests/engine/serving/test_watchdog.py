"""A step that hangs, a thread that dies: nobody waits for ever, and the engine says so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import EngineFailure
from engine.fast import DecoderRunner, FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Rendered
from engine.request import Failed, Finished, ScoreRequest, TextDelta
from engine.serving import watchdog
from engine.serving.scoring_task import ScoringTask
from engine.serving.stream import QueuedStream
from engine.serving.watchdog import HANG_SECONDS, POLL_SECONDS, Watchdog
from tests.helpers import answer, ask
from tests.support.waiting import wait_until

SHORT = 0.2  # seconds that are a hang in these tests
LONG: dict[str, Any] = {"max_new_tokens": 1500, "ignore_eos": True}
SCORE = ScoreRequest((Message("user", "Hi"),), "The sea.")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "POLL_SECONDS", SHORT / 10)
    monkeypatch.setattr(DecoderRunner, "hang_seconds", SHORT)
    monkeypatch.setattr(Watchdog.__init__, "__defaults__", (SHORT,))


@pytest.fixture
def engine(impatient: None, tiny_base: BaseModel, kernel_cache: Path) -> Iterator[FastEngine]:
    """An engine that has made its first steps, so that its patience is short."""
    engine = FastEngine(tiny_base, kernel_cache=kernel_cache, dtype=torch.float32, max_rows=2)
    answer(engine, "Hello!")
    yield engine
    engine.close()


@contextlib.contextmanager
def hanging(engine: FastEngine, *, after: int = 0) -> Iterator[threading.Event]:
    """Forward passes hang, from the one `after` so many on, until the block ends or the event."""
    resume, real, calls = threading.Event(), engine.runner.run, 0

    def hang(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            resume.wait(30)
        return real(*arguments)

    engine.runner.run = hang  # type: ignore[method-assign, assignment]
    try:
        yield resume
    finally:
        engine.runner.run = real  # type: ignore[method-assign]
        resume.set()


class TestWatchdog:
    @pytest.fixture
    def given_up(self) -> list[float]:
        return []

    @pytest.fixture
    def dog(self, impatient: None, given_up: list[float]) -> Iterator[Watchdog]:
        dog = Watchdog(lambda: given_up.append(time.monotonic()))
        for _ in range(2):  # the first step may take longer
            with dog.watching():
                dog.expect(0)
        yield dog
        dog.close()

    def test_a_hang_is_found_and_said_within_five_seconds(self) -> None:
        assert HANG_SECONDS + 2 * POLL_SECONDS <= 5

    def test_a_quick_step_and_no_step_are_no_hang(
        self, dog: Watchdog, given_up: list[float]
    ) -> None:
        for _ in range(3):
            with dog.watching():
                time.sleep(SHORT / 10)
        time.sleep(2 * SHORT)
        assert not dog.expired
        assert given_up == []

    def test_a_long_step_is_a_hang_until_it_ends(
        self, dog: Watchdog, given_up: list[float]
    ) -> None:
        with dog.watching():
            assert not dog.expired
            wait_until(lambda: given_up)
            assert dog.expired
        assert not dog.expired

    def test_a_step_that_fails_is_over(self, dog: Watchdog) -> None:
        with pytest.raises(RuntimeError), dog.watching():
            raise RuntimeError
        time.sleep(1.5 * SHORT)
        assert not dog.expired

    def test_the_first_step_may_take_longer(self, impatient: None) -> None:
        given_up: list[int] = []
        dog = Watchdog(lambda: given_up.append(1))
        with dog.watching():
            pass  # nothing was computed: somebody left before
        with dog.watching():
            dog.expect(0)
            time.sleep(2 * SHORT)
            assert not dog.expired
        assert given_up == []
        dog.close()

    def test_a_step_planned_to_take_long_may_and_the_next_may_not(
        self, dog: Watchdog, given_up: list[float]
    ) -> None:
        with dog.watching():
            dog.expect(10 * SHORT)
            time.sleep(2 * SHORT)
            assert not dog.expired
        assert given_up == []
        with dog.watching():
            wait_until(lambda: dog.expired)


class TestHangs:
    def test_streams_running_and_waiting_end_with_an_error_and_the_engine_is_not_alive(
        self, engine: FastEngine
    ) -> None:
        with hanging(engine, after=5):
            streams = engine.submit_many([ask(q, **LONG) for q in ("Why?", "Hi", "sea")])
            ends = [list(stream)[-1] for stream in streams]
            assert not engine.alive
            with pytest.raises(EngineFailure, match="not running"):
                engine.submit(ask("Why?"))
        for end in ends:
            assert isinstance(end, Failed)
            assert "the engine hangs" in str(end.error)
        assert [bool(end.text) for end in ends] == [True, True, False]

    def test_who_scores_is_told_too(self, engine: FastEngine) -> None:
        with hanging(engine), pytest.raises(EngineFailure, match="the engine hangs"):
            engine.score([SCORE, SCORE])

    def test_a_step_that_ends_after_all_leaves_an_engine_that_works_and_leaks_nothing(
        self, engine: FastEngine
    ) -> None:
        expected, [score] = answer(engine, "Why?"), engine.score([SCORE])
        with hanging(engine, after=3) as resume:
            streams = engine.submit_many([ask(q, **LONG) for q in ("Why?", "Hi", "sea")])
            events = [list(stream) for stream in streams]
            resume.set()
        wait_until(lambda: engine.alive and engine.active_streams == 0)
        assert engine.runner.cache.used_pages == 0
        assert answer(engine, "Why?") == expected
        assert engine.score([SCORE]) == [score]
        for told, stream in zip(events, streams, strict=True):
            assert [isinstance(e, TextDelta) for e in told[:-1]] == [True] * (len(told) - 1)
            assert stream._events.empty(), "something followed the terminal event"

    def test_a_score_that_is_done_after_all_does_not_disturb_others(
        self, engine: FastEngine
    ) -> None:
        with hanging(engine) as resume, pytest.raises(EngineFailure):
            engine.score([SCORE])
        resume.set()
        wait_until(lambda: engine.alive and engine.active_streams == 0)
        assert answer(engine, "Why?").text

    def test_an_engine_that_hangs_can_be_closed(self, engine: FastEngine) -> None:
        with hanging(engine):
            stream = engine.submit(ask("Why?"))
            engine.close()
            assert isinstance(list(stream)[-1], Failed)
            assert not engine.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
class TestDeaths:
    def test_a_thread_that_dies_ends_every_stream_and_refuses_new_ones(
        self, engine: FastEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        streams = engine.submit_many([ask(q, **LONG) for q in ("Why?", "Hi", "sea")])
        next(iter(streams[0]))

        def die(*_: Any) -> Any:
            raise SystemExit

        monkeypatch.setattr(engine.runner, "run", die)
        ends = [list(stream)[-1] for stream in streams]
        assert all(isinstance(end, Failed) for end in ends)
        wait_until(lambda: not engine.alive, seconds=5)
        for refused in (lambda: engine.submit(ask("Why?")), lambda: engine.score([SCORE])):
            with pytest.raises(EngineFailure, match="not running"):
                refused()

    def test_who_queues_while_it_dies_is_refused_or_told(
        self, engine: FastEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ask_until_refused() -> list[Any]:
            ends: list[Any] = []
            with contextlib.suppress(EngineFailure):
                while True:
                    ends.append(list(engine.submit(ask("Hi", max_new_tokens=2)))[-1])
            return ends

        with ThreadPoolExecutor(8) as pool:
            asked: list[Future[list[Any]]] = [pool.submit(ask_until_refused) for _ in range(8)]
            time.sleep(0.1)
            monkeypatch.setattr(engine.loop.scheduler, "schedule", _exit)
            ends = [end for future in asked for end in future.result(timeout=30)]
        assert any(isinstance(end, Finished) for end in ends)
        assert all(isinstance(end, Finished | Failed) for end in ends)


def _exit() -> None:
    raise SystemExit


class TestOneEnd:
    """Two threads may end the same work: the engine's and the watchdog's."""

    def test_of_terminal_events_put_at_once_one_is_told(self) -> None:
        for _ in range(200):
            stream, together = QueuedStream(), threading.Barrier(4)

            def put(stream: QueuedStream = stream, together: threading.Barrier = together) -> None:
                together.wait()
                stream.put(Failed(EngineFailure("over"), ""))

            with ThreadPoolExecutor(4) as pool:
                for future in [pool.submit(put) for _ in range(4)]:
                    future.result()
            assert stream._events.qsize() == 1

    def test_a_score_has_one_end(self) -> None:
        rendered = Rendered(prompt_ids=(1, 2), completion_ids=(0,))
        late, early = ScoringTask(rendered), ScoringTask(rendered)
        late.fail(EngineFailure("hangs"))
        late.take(torch.zeros(1, 4), [0])
        early.take(torch.zeros(1, 4), [0])
        early.fail(EngineFailure("hangs"))
        assert isinstance(late.future.exception(), EngineFailure)
        [logprob] = early.future.result().token_logprobs
        assert logprob == pytest.approx(-1.3863, abs=1e-4)  # ln of one in four
