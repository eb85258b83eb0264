"""Prometheus metrics that a server measures itself: of its answers and its swaps of adapters.

Each server has its own registry. No label comes from what people write, and each has few values:
ids would make a time series each. What the store counts is `app.web.metrics`'s; the meaning of
each metric stands in docs/operations.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from engine.errors import BurnishError, Overloaded
from engine.request import Failed, Finished, StreamEvent, TextDelta

# Upper bounds; each series ends with one for everything above
SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)
PACE_BUCKETS = (1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500)


class MeasuredAnswer:
    """The times of one answer, from the question until its last event."""

    def __init__(self, asked_at: float) -> None:
        self._asked_at = asked_at  # monotonic seconds, like the others
        self._first_at: float | None = None
        self._ended_at = asked_at
        self._end: Finished | Failed | None = None
        self.lost = False  # to an error that the engine knows nothing of

    def take(self, event: StreamEvent) -> None:
        """Note the moment of an event of the answer's stream."""
        if isinstance(event, TextDelta):
            self._first_at = self._first_at or time.monotonic()
        elif isinstance(event, Finished | Failed):
            self._end, self._ended_at = event, time.monotonic()

    @property
    def outcome(self) -> str:
        """Done, stopped by somebody (also by leaving), or failed."""
        if self.lost or isinstance(self._end, Failed):
            return "failed"
        return "stopped" if self._end is None or self._end.reason == "cancelled" else "done"

    @property
    def first_text_seconds(self) -> float | None:
        """The time from the question until its first text; None where there was none."""
        return None if self._first_at is None else self._first_at - self._asked_at

    @property
    def queue_seconds(self) -> float | None:
        """The time in the engine's queue, where the engine knows it."""
        return self._end.queue_seconds if isinstance(self._end, Finished) else None

    @property
    def tokens_per_second(self) -> float | None:
        """The pace after the first text; None for an answer of one token, which has none."""
        if not isinstance(self._end, Finished) or self._first_at is None:
            return None
        tokens, seconds = self._end.completion_tokens - 1, self._ended_at - self._first_at
        return tokens / seconds if tokens > 0 and seconds > 0 else None


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._answers = self._counter(
            "burnish_answers", "Answers that ended, by outcome", "outcome"
        )
        self._refused = self._counter(
            "burnish_answers_refused", "Answers that were not begun, by the error's kind", "error"
        )
        self._first_text = self._histogram(
            "burnish_first_token_seconds", "Time from a question to its first text"
        )
        self._queue = self._histogram("burnish_queue_seconds", "Time in the engine's queue")
        self._pace = self._histogram(
            "burnish_tokens_per_second",
            "Pace of an answer after its first text",
            buckets=PACE_BUCKETS,
        )
        self._swap = self._histogram(
            "burnish_swap_seconds", "Time to verify, load, probe and activate an adapter", "result"
        )

        # A rate needs a series that was 0 before
        for outcome in ("done", "stopped", "failed"):
            self._answers.labels(outcome)
        for result in ("activated", "refused"):
            self._swap.labels(result)
        self._refused.labels(Overloaded.__name__)

    @contextmanager
    def answer(self, asked_at: float) -> Iterator[MeasuredAnswer]:
        """Measure an answer until the block ends; `asked_at` is in monotonic seconds."""
        measured = MeasuredAnswer(asked_at)
        try:
            yield measured
        except Exception:
            measured.lost = True
            raise
        finally:
            self._answers.labels(measured.outcome).inc()
            for histogram, value in (
                (self._first_text, measured.first_text_seconds),
                (self._queue, measured.queue_seconds),
                (self._pace, measured.tokens_per_second),
            ):
                if value is not None:
                    histogram.observe(value)

    @contextmanager
    def counting_refusals(self, answers: int) -> Iterator[None]:
        """Count so many answers as refused if the block raises."""
        try:
            yield
        except BurnishError as error:
            self._refused.labels(type(error).__name__).inc(answers)
            raise

    def observe_swap(self, seconds: float, activated: bool) -> None:
        """Note that the engine has taken or refused an adapter."""
        self._swap.labels("activated" if activated else "refused").observe(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS_BUCKETS
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
