"""An engine without a model: every answer is "w0 w1 w2 ...", or what a test wants it to be, one
word a token, 10 ms a token.

It keeps the promises of `engine.request.Engine` (a bounded queue, rows decoded together, one
terminal event a stream, deadlines, cancelling within a step) and can be made to stand still, hang
or die, for the tests of what the floors above do then.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from engine.errors import DeadlineExceeded, EngineFailure, Overloaded, PromptTooLong
from engine.messages import Message
from engine.request import (
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    Score,
    ScoreRequest,
    TextDelta,
    TokenLogprob,
)
from engine.serving.stream import QueuedStream
from engine.time_slices import YieldToEngine, do_not_yield

HANG_SECONDS = 1.0  # without a sign of life for so long, the engine calls itself dead


class FakeEngine:
    """Eight rows, a queue of 32, one thread."""

    base_digest = "sha256:" + "f" * 64
    context_tokens = 4096
    thinks_unasked: bool | None = None

    def __init__(
        self, *, max_rows: int = 8, max_queue: int = 32, token_seconds: float = 0.01
    ) -> None:
        self.requests: list[GenerationRequest] = []  # all that were accepted
        self.says = ""  # what is answered, where it is not "w0 w1 w2 ..."
        self.answers: Iterator[str] = iter(())  # what is answered first, one after the other
        self.token_seconds = token_seconds
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._rows: list[_Row] = []
        self._waiting: deque[_Row] = deque()
        self._lock = threading.Lock()  # guards the three above
        self._runs = threading.Event()
        self._runs.set()
        self._hangs = False
        self._closing = False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="fake-engine", daemon=True)
        self._thread.start()

    # What the tests do to it

    def stand_still(self) -> None:
        """Make no token until `go_on`; submitting and being alive go on."""
        self._runs.clear()

    def go_on(self) -> None:
        self._runs.set()

    def hang(self) -> None:
        """The thread never comes back from its next step."""
        self._hangs = True

    def die(self) -> None:
        """The thread ends and leaves every stream without an end."""
        self._closing = True
        self._thread.join()

    def break_off(self, reason: str) -> None:
        """Every answer fails; the next ones do not."""
        with self._lock:
            for row in [*self._rows, *self._waiting]:
                row.fail(EngineFailure(reason))

    @property
    def running(self) -> int:
        return len(self._rows)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def active_streams(self) -> int:
        return len(self._rows) + len(self._waiting)

    # The protocol

    @property
    def alive(self) -> bool:
        fresh = time.monotonic() - self._beat < HANG_SECONDS
        return self._thread.is_alive() and not self._closing and fresh

    def submit(self, request: GenerationRequest) -> QueuedStream:
        return self.submit_many([request])[0]

    def submit_many(self, requests: Sequence[GenerationRequest]) -> list[QueuedStream]:
        if not self.alive:
            raise EngineFailure("the engine is not running")
        for request in requests:
            if self.count_prompt_tokens(request.messages) >= self.context_tokens:
                raise PromptTooLong("the prompt leaves no room for an answer")
        rows = [_Row(request, next(self.answers, self.says)) for request in requests]
        with self._lock:
            if self.active_streams + len(rows) > self._max_rows + self._max_queue:
                raise Overloaded("the queue is full; try again later", retry_after_seconds=1.5)
            self.requests.extend(requests)
            self._waiting.extend(rows)
            self._admit()
        return [row.stream for row in rows]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score((-1.0,) * len(request.completion.split())) for request in requests]

    def count_prompt_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        return sum(len(message.content.split()) for message in messages)

    def background(self) -> AbstractContextManager[YieldToEngine]:
        return nullcontext(do_not_yield)

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Adapters change nothing here."""

    def unload_adapter(self, digest: str) -> None:
        """Adapters change nothing here."""

    def close(self) -> None:
        self._closing = True
        self._runs.set()
        self._thread.join()
        for row in [*self._rows, *self._waiting]:
            row.fail(EngineFailure("the engine stopped"))

    def _run(self) -> None:
        while not self._closing:
            if self._hangs:
                time.sleep(0.01)
                continue
            self._beat = time.monotonic()
            if self._runs.wait(timeout=self.token_seconds):
                time.sleep(self.token_seconds)
            with self._lock:
                self._step()

    def _step(self) -> None:
        for row in [*self._rows, *self._waiting]:
            row.end_if_due()
        for row in self._rows:
            if self._runs.is_set() and not row.ended:
                row.take()
        self._waiting = deque(row for row in self._waiting if not row.ended)
        self._rows = [row for row in self._rows if not row.ended]
        self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._rows) < self._max_rows:
            self._rows.append(self._waiting.popleft())


class _Row:
    """One stream while it is made."""

    def __init__(self, request: GenerationRequest, says: str) -> None:
        self.stream = QueuedStream()
        self.ended = False
        self._request = request
        self._says = re.findall(r"\S+\s*|\s+", says)
        self._words: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        timeout = request.timeout_seconds
        self._deadline = float("inf") if timeout is None else time.monotonic() + timeout

    def end_if_due(self) -> None:
        if self.stream.cancelled:
            self._finish("cancelled")
        elif time.monotonic() > self._deadline:
            self.fail(DeadlineExceeded("the answer was not done by its deadline"))

    def take(self) -> None:
        number = len(self._words)
        word = self._says[number] if self._says else f"w{number} "
        self._words.append(word)
        new: tuple[TokenLogprob, ...] = ()
        if (top := self._request.sampling.logprobs) is not None:
            likely = tuple((number + i, f"w{number + i} ", -0.5 - i) for i in range(top))
            new = (TokenLogprob(number, word, -0.5, likely),)
            self._logprobs.extend(new)
        self.stream.put(TextDelta(word, new))
        if len(self._words) >= self._request.sampling.max_new_tokens:
            self._finish("length")
        elif number + 1 == len(self._says):
            self._finish("stop")

    def fail(self, error: EngineFailure | DeadlineExceeded) -> None:
        self.ended = True
        self.stream.put(Failed(error, "".join(self._words)))

    def _finish(self, reason: FinishReason) -> None:
        self.ended = True
        prompt_tokens = sum(len(m.content.split()) for m in self._request.messages)
        self.stream.put(
            Finished(
                reason,
                "".join(self._words),
                prompt_tokens,
                len(self._words),
                tuple(self._logprobs),
                cached_prompt_tokens=prompt_tokens - 1,
            )
        )
