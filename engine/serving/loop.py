"""The engine's thread: one step after the other, over any model.

Callers queue sequences and calls; between two steps they are taken in. The thread owns the model,
the cache and the scheduler. Knows sequences, tasks and threads; knows nothing of text, of requests
or of how a model computes.
"""

from __future__ import annotations

import threading
import time
from collections import abc
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor

from engine.errors import Conflict, EngineFailure, Overloaded, UnknownId
from engine.serving.commands import Commands
from engine.serving.runner import ModelRunner, StepOutput
from engine.serving.sampler import forbid, most_likely
from engine.serving.scheduler import Scheduler
from engine.serving.sequence import Adapter, ScheduledChunk, Sequence
from engine.serving.task import Task
from engine.serving.watchdog import POLL_SECONDS, Watchdog
from engine.time_slices import TimeSlices, YieldToEngine

T = TypeVar("T")


class EngineLoop:
    """Continuous batching: sequences join and leave the batch between any two steps."""

    def __init__(
        self, runner: ModelRunner, padding_ids: abc.Sequence[int], *, max_rows: int, max_queue: int
    ) -> None:
        """`padding_ids`: rows of the vocabulary that are no token and are never drawn.
        `max_queue`: answers that may wait."""
        self.runner = runner
        self.scheduler = Scheduler(runner.cache_manager, max_rows=max_rows)
        self.max_queue = max_queue
        self.time_slices = TimeSlices()
        self.adapters: dict[str, Adapter] = {}
        self._padding_ids = torch.tensor(padding_ids, dtype=torch.long)
        self._inbox: list[Sequence] = []
        self._commands = Commands()
        self._wake = threading.Condition()  # guards the inbox, and adapters against new users
        self._closing = False
        self._watchdog = Watchdog(self._fail_hanging, runner.hang_seconds)
        self._thread = threading.Thread(target=self._run, name="burnish-engine", daemon=True)
        self._thread.start()

    # Called from any thread

    @property
    def alive(self) -> bool:
        """Return whether tokens are made: the thread runs and no step hangs."""
        return self._thread.is_alive() and not self._closing and not self._watchdog.expired

    @property
    def active_sequences(self) -> int:
        """Sequences running or waiting."""
        return len(self.scheduler.running) + len(self.scheduler.waiting) + len(self._inbox)

    def submit(self, sequences: abc.Sequence[Sequence]) -> None:
        """Queue sequences, all or none.

        Raises `Overloaded` where more answers would wait than may, `UnknownId` where an adapter
        was freed meanwhile, `EngineFailure` where the thread does not run.
        """
        with self._wake:
            self._require_alive()
            for sequence in sequences:
                if self.adapters.get(sequence.adapter_digest or "") is not sequence.adapter:
                    raise UnknownId("the adapter was freed while the answer was made ready")
            queued = sum(s.task.is_answer for s in (*self._inbox, *self.scheduler.waiting))
            answers = sum(s.task.is_answer for s in sequences)
            if answers and queued + answers > self.max_queue:
                raise Overloaded(f"{queued} answers are waiting; try again later")
            self._inbox.extend(sequences)
            self._wake.notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """See `EngineThread`."""
        with self._wake:
            self._require_alive()
            future = self._commands.put(function)
            self._wake.notify()
        return future

    def background(self) -> AbstractContextManager[YieldToEngine]:
        """See `EngineThread`: a step waits for at most one time slice, and the reverse."""
        return self.time_slices.slices()

    def remove_adapter(self, digest: str) -> None:
        """Free an adapter; raises `Conflict` while a sequence decodes with it."""
        with self._wake:
            self._require_alive()
            users = (s for s in self._all_sequences() if not s.task.ended)
            if any(s.adapter_digest == digest for s in users):
                raise Conflict("a stream still decodes with this adapter")
            adapter = self.adapters.pop(digest, None)
            if adapter is not None:
                self.call(adapter.close)

    def close(self) -> None:
        """Fail every sequence and end the thread; one that hangs is left behind."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        while self._thread.is_alive() and not self._watchdog.expired:
            self._thread.join(POLL_SECONDS)
        self._fail_all(EngineFailure("the engine stopped"))
        self._watchdog.close()

    # The engine's thread

    def step(self) -> None:
        """Run a command, schedule, compute, sample and publish."""
        self._commands.run_one()
        try:
            self._end_due_tasks()
            chunks = self.scheduler.schedule()
            if chunks:
                self._sample_and_publish(chunks, self._compute(chunks))
        except Exception as error:  # noqa: BLE001 - the thread's edge: no stream may be left waiting
            # Fail the running sequences; if none is running, fail the queued ones
            self._fail([*self.scheduler.running] or self._all_sequences(), _failure(error))

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    with self.time_slices.slice(), self._watchdog.watching():
                        self.step()
        finally:
            with self._wake:  # what is queued by now fails below, and the next caller is refused
                self._closing = True
            self._fail_all(EngineFailure("the engine stopped"))

    def _wait_for_work(self) -> bool:
        """Take the inbox in; returns False once the loop is to end."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._closing or self._inbox or self._commands or not self.scheduler.idle
            )
            self.scheduler.waiting.extend(self._inbox)
            self._inbox.clear()
            return not self._closing

    def _end_due_tasks(self) -> None:
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            sequence.task.end_if_due()

    def _compute(self, chunks: list[ScheduledChunk]) -> StepOutput:
        """Run the model, and measure the pace for the next plan."""
        self._watchdog.expect(self.scheduler.expected_seconds(chunks))
        begun = time.perf_counter()
        output = self.runner.run(chunks)
        self.scheduler.complete(chunks, time.perf_counter() - begun)
        return output

    def _sample_and_publish(self, chunks: list[ScheduledChunk], output: StepOutput) -> None:
        """Hand each task the rows of its chunk: it samples and tells its reader."""
        allowed = forbid(output.logits, self._padding_ids)  # for scores too: see `Score`
        likeliest = most_likely(allowed)
        row = hidden_row = 0
        for chunk in chunks:
            task, count = chunk.sequence.task, len(chunk.wanted)
            if chunk.takes_hidden_states:
                _hand_over(task, output.hidden[hidden_row : hidden_row + count], [])
                hidden_row += count
            elif count:
                _hand_over(task, allowed[row : row + count], likeliest[row : row + count])
                row += count

    # Failures

    def _require_alive(self) -> None:
        if not self.alive:
            raise EngineFailure("the engine is not running")

    def _all_sequences(self) -> list[Sequence]:
        """All sequences, in the direction in which they move, so that none is missed."""
        return [*self._inbox, *self.scheduler.waiting, *self.scheduler.running]

    def _fail(self, sequences: abc.Sequence[Sequence], failure: EngineFailure) -> None:
        for sequence in sequences:
            sequence.task.fail(failure)

    def _fail_hanging(self) -> None:
        """Called by the watchdog when a step hangs, so that no reader waits for ever."""
        self._fail_all(EngineFailure("the engine hangs; restart the server"))

    def _fail_all(self, failure: EngineFailure) -> None:
        self._fail(self._all_sequences(), failure)
        self._commands.fail(failure)


def _hand_over(task: Task, rows: Tensor, most_likely: abc.Sequence[int]) -> None:
    try:
        task.take(rows, most_likely)
    except Exception as error:  # noqa: BLE001 - the fault of one row, such as NaN
        task.fail(_failure(error))


def _failure(error: Exception) -> EngineFailure:
    return EngineFailure(f"{type(error).__name__}: {error}")
