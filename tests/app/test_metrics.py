"""Measurements of an answer: its outcome, first text, queue and pace."""

from __future__ import annotations

import time

import pytest

from app.metrics import MeasuredAnswer, Metrics
from engine.errors import EngineFailure, Overloaded
from engine.request import Failed, Finished, StreamEvent, TextDelta

DONE = Finished("length", "a b c", 3, 11, queue_seconds=2.0)


class Clock:
    """The monotonic clock, set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def answered(metrics: Metrics, clock: Clock, events: list[tuple[float, StreamEvent]]) -> None:
    """An answer that was asked for at 100 s, and its events with their moments."""
    with metrics.answer(asked_at=100.0) as measured:
        for at, event in events:
            clock.now = at
            measured.take(event)


def test_an_answer_is_timed_from_its_question_to_its_end(clock: Clock) -> None:
    metrics = Metrics()
    answered(metrics, clock, [(103.0, TextDelta("a")), (104.0, TextDelta("b")), (105.0, DONE)])
    assert value(metrics, "burnish_answers_total", outcome="done") == 1
    assert value(metrics, "burnish_first_token_seconds_sum") == 3
    assert value(metrics, "burnish_queue_seconds_sum") == 2
    assert value(metrics, "burnish_tokens_per_second_sum") == 5  # ten tokens in two seconds


def test_an_answer_of_one_token_has_no_pace(clock: Clock) -> None:
    metrics = Metrics()
    answered(metrics, clock, [(101.0, TextDelta("a")), (101.0, Finished("stop", "a", 3, 1))])
    assert value(metrics, "burnish_first_token_seconds_count") == 1
    assert value(metrics, "burnish_tokens_per_second_count") == 0
    assert value(metrics, "burnish_queue_seconds_count") == 0  # this engine does not know it


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([(101.0, Finished("cancelled", "", 3, 0))], "stopped"),
        ([(101.0, TextDelta("a"))], "stopped"),  # whoever followed it has left
        ([(101.0, Failed(EngineFailure("gone"), "a"))], "failed"),
    ],
)
def test_an_answer_that_does_not_end_well_is_told_apart(
    clock: Clock, events: list[tuple[float, StreamEvent]], outcome: str
) -> None:
    metrics = Metrics()
    answered(metrics, clock, events)
    assert value(metrics, "burnish_answers_total", outcome=outcome) == 1
    assert value(metrics, "burnish_tokens_per_second_count") == 0


def test_an_error_beside_the_engine_is_a_failure() -> None:
    metrics = Metrics()
    with pytest.raises(RuntimeError), metrics.answer(0.0):
        raise RuntimeError("the database is gone")
    assert value(metrics, "burnish_answers_total", outcome="failed") == 1


def test_refused_answers_are_counted_by_the_errors_kind() -> None:
    metrics = Metrics()
    with pytest.raises(Overloaded), metrics.counting_refusals(3):
        raise Overloaded("4 answers are waiting")
    assert value(metrics, "burnish_answers_refused_total", error="Overloaded") == 3


def test_a_new_answer_was_stopped_until_it_says_otherwise() -> None:
    assert MeasuredAnswer(0.0).outcome == "stopped"
