"""An engine without a model, whose answers a test scripts: the only double of an engine.

The adapter's `Voice` gives the answer to a request. An engine without voices answers `says`, and
where that is empty "w0 w1 w2 ..." up to the request's limit. One word, or one Chinese character, is
a token. The token ids of a raw prompt are words as well: t0, t1 and so on.

The engine keeps the promises of `engine.request.Engine` (a bounded queue, rows decoded together,
one terminal event a stream, deadlines, cancelling within a step). With `token_seconds`, a thread
makes a token of every row in each such time, and can be made to stand still, hang or die, for the
tests of what the floors above do then. With 0 there is no thread: an answer is complete when it has
been submitted.
"""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from engine.errors import DeadlineExceeded, EngineFailure, InvalidInput, Overloaded, PromptTooLong
from engine.messages import Message
from engine.prompts.calls.formats import HERMES
from engine.request import (
    EmbeddingRequest,
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    PromptRead,
    RawPrompt,
    Score,
    ScoreRequest,
    TextDelta,
    TextEmbedding,
    TokenLogprob,
)
from engine.serving.stream import QueuedStream
from engine.time_slices import YieldToEngine, do_not_yield
from engine.tools import CallReader
from tests.support.voices import Voice, tokens

CHANNELS = 8  # of an embedding
HANG_SECONDS = 1.0  # without a sign of life for so long, the engine calls itself dead


class ScriptedEngine:
    """Eight rows, a queue of 32, one thread. The voice of None is the base's."""

    base_digest = "sha256:" + "f" * 64
    context_tokens = 4096
    thinks_unasked: bool | None = None
    call_format: CallReader = HERMES

    def __init__(
        self,
        voices: Mapping[str | None, Voice] | None = None,
        *,
        max_rows: int = 8,
        max_queue: int = 32,
        token_seconds: float = 0,
    ) -> None:
        self.requests: list[GenerationRequest] = []  # all that were accepted
        self.scored: list[ScoreRequest] = []
        self.says = ""  # what is answered, where it is not "w0 w1 w2 ..."
        self.answers: Iterator[str] = iter(())  # what is answered first, one after the other
        self.token_seconds = token_seconds
        self._voices = voices
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._rows: list[_Row] = []
        self._waiting: deque[_Row] = deque()
        self._lock = threading.Lock()  # guards the two above
        self._runs = threading.Event()
        self._runs.set()
        self._hangs = False
        self._closing = False
        self._beat = time.monotonic()
        self._thread: threading.Thread | None = None
        if token_seconds:
            self._thread = threading.Thread(target=self._run, name="scripted-engine", daemon=True)
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
        self._end_thread()

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
        if self._thread is None:
            return not self._closing
        fresh = time.monotonic() - self._beat < HANG_SECONDS
        return self._thread.is_alive() and not self._closing and fresh

    def submit(self, request: GenerationRequest) -> QueuedStream:
        return self.submit_many([request])[0]

    def submit_many(self, requests: Sequence[GenerationRequest]) -> list[QueuedStream]:
        if not self.alive:
            raise EngineFailure("the engine is not running")
        for request in requests:
            if _prompt_tokens(request) >= self.context_tokens:
                raise PromptTooLong("the prompt leaves no room for an answer")
        rows = [self._row(request) for request in requests]
        with self._lock:
            if self.active_streams + len(rows) > self._max_rows + self._max_queue:
                raise Overloaded("the queue is full; try again later", retry_after_seconds=1.5)
            self.requests.extend(requests)
            self._waiting.extend(rows)
            self._admit()
            while self._thread is None and self.active_streams:
                self._step()
        return [row.stream for row in rows]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.scored.extend(requests)
        return [
            Score((self._liking(request),) * len(tokens(request.completion)))
            for request in requests
        ]

    def embed(self, requests: Sequence[EmbeddingRequest]) -> list[TextEmbedding]:
        """The direction of a text has one channel for each first letter, counted."""
        found = []
        for request in requests:
            if not request.prompt:
                raise InvalidInput(f"{request.name} has no tokens")
            text = _text_of(request.prompt)
            words = tokens(text) or list(text)  # of signs alone
            counts = Counter(ord(word[0]) % CHANNELS for word in words)
            length = math.hypot(*counts.values())
            vector = array("f", [counts[channel] / length for channel in range(CHANNELS)])
            found.append(TextEmbedding(vector, len(words)))
        return found

    def count_prompt_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        return sum(len(message.content.split()) for message in messages)

    def background(self) -> AbstractContextManager[YieldToEngine]:
        return nullcontext(do_not_yield)

    def request_tokens(self, request: GenerationRequest) -> int:
        return _prompt_tokens(request)

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Adapters change nothing here."""

    def unload_adapter(self, digest: str) -> None:
        """Adapters change nothing here."""

    def close(self) -> None:
        self._runs.set()
        self._end_thread()
        for row in [*self._rows, *self._waiting]:
            row.fail(EngineFailure("the engine stopped"))

    def _row(self, request: GenerationRequest) -> _Row:
        if self._voices is None:
            return _Row(request, tokens(next(self.answers, self.says)) or None)
        voice = self._voices[request.adapter]
        return _Row(request, tokens(voice.answers(_text_of(request))), voice.ends)

    def _liking(self, request: ScoreRequest) -> float:
        """Log-probability of each of a completion's tokens."""
        return (
            -1.0
            if self._voices is None
            else self._voices[request.adapter].likes(request.completion)
        )

    def _end_thread(self) -> None:
        self._closing = True
        if self._thread is not None:
            self._thread.join()

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

    def __init__(
        self, request: GenerationRequest, script: list[str] | None, ends: bool = True
    ) -> None:
        self.stream = QueuedStream(_prompt_tokens(request))
        self.ended = False
        self._request = request
        self._script = script  # None: it counts
        self._ends = ends
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
        if number == 0 and self._request.echo:
            self.stream.put(self._prompt_read())
        if self._script is not None and number == len(self._script):
            self._finish("stop" if self._ends else "length")
            return
        word = self._script[number] if self._script is not None else f"w{number} "
        self._words.append(word)
        new: tuple[TokenLogprob, ...] = ()
        if (top := self._request.sampling.logprobs) is not None:
            likely = tuple((number + i, f"w{number + i} ", -0.5 - i) for i in range(top))
            new = (TokenLogprob(number, word, -0.5, likely),)
            self._logprobs.extend(new)
        self.stream.put(TextDelta(word, new))
        if len(self._words) >= self._request.sampling.max_new_tokens:
            self._finish("length")

    def _prompt_read(self) -> PromptRead:
        text, top = _text_of(self._request), self._request.sampling.logprobs
        first, *rest = tokens(text)
        scored = () if top is None else tuple(TokenLogprob(0, word, -1.5, ()) for word in rest)
        return PromptRead(text, first, scored)

    def fail(self, error: EngineFailure | DeadlineExceeded) -> None:
        self.ended = True
        self.stream.put(Failed(error, "".join(self._words)))

    def _finish(self, reason: FinishReason) -> None:
        self.ended = True
        prompt_tokens = _prompt_tokens(self._request)
        self.stream.put(
            Finished(
                reason,
                "".join(self._words),
                prompt_tokens,
                len(self._words) + (reason == "stop"),  # the end is a token too
                tuple(self._logprobs),
                cached_prompt_tokens=prompt_tokens - 1,
            )
        )


def _text_of(asked: GenerationRequest | RawPrompt) -> str:
    """A raw prompt as text, or the last message."""
    if isinstance(asked, GenerationRequest):
        return asked.messages[-1].content if asked.prompt is None else _text_of(asked.prompt)
    return asked if isinstance(asked, str) else " ".join(f"t{token_id}" for token_id in asked)


def _prompt_tokens(request: GenerationRequest) -> int:
    if request.prompt is not None:
        return len(_text_of(request).split())
    return sum(len(message.content.split()) for message in request.messages)
