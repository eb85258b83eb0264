"""Passes running answers from their threads to the event loop.

Reading a stream blocks, so each answer has a thread of its own; the engine's queue bounds their
number. Knows nothing of HTTP and of the use of the pieces.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace

from app.answering.answering import AnswerUpdate, RunningAnswer
from engine.errors import BurnishError, EngineFailure
from engine.tools import CallPiece, WrittenCall, new_call_pieces

LIVENESS_SECONDS = 1.0

Submit = Callable[[], Sequence[RunningAnswer]]


@dataclass(frozen=True, slots=True)
class Piece:
    """The new text of the answer `index`. Its first piece comes before its first token.

    Only the last update has the whole texts; the others stay small, for slow readers.
    """

    index: int
    thought: str
    text: str
    update: AnswerUpdate
    calls: tuple[CallPiece, ...] = ()

    @property
    def has_text(self) -> bool:
        """Return whether there is something new to show."""
        return bool(self.thought or self.text or self.calls)

    @property
    def is_last(self) -> bool:
        """Return whether the answer has ended."""
        return self.update.status != "streaming"


class Relay:
    """The pieces of one request's answers, as they come. The caller must `close` it."""

    def __init__(self, is_alive: Callable[[], bool]) -> None:
        self._is_alive = is_alive
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._answers: Sequence[RunningAnswer] = ()
        self._closed = False
        self._lock = threading.Lock()  # guards the two above

    async def start(self, executor: Executor, submit: Submit) -> None:
        """Call `submit` in a thread of `executor` and follow its answers; raises its errors."""
        await self._loop.run_in_executor(executor, self._start, submit)

    @property
    def count(self) -> int:
        """The number of answers, once they are started."""
        return len(self._answers)

    def close(self) -> None:
        """End every answer within a step; the rest is not wanted."""
        with self._lock:
            self._closed = True
            for answer in self._answers:
                answer.cancel()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the pieces of all answers, until every one has ended.

        Raises `EngineFailure` if nothing comes and the engine is dead.
        """
        running = len(self._answers)
        while running:
            piece = await self._next()
            running -= piece.is_last
            yield piece

    async def _next(self) -> Piece:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LIVENESS_SECONDS):
                    return await self._pieces.get()
            if not self._is_alive() and self._pieces.empty():
                raise EngineFailure("the engine has stopped answering")

    def _start(self, submit: Submit) -> None:
        if self._closed:
            return  # closed while waiting for a thread
        answers = submit()
        with self._lock:
            self._answers = answers
            if self._closed:
                for answer in answers:
                    answer.cancel()
        for index, answer in enumerate(answers):
            threading.Thread(
                target=self._follow, args=(index, answer), name="burnish-answer", daemon=True
            ).start()

    def _follow(self, index: int, answer: RunningAnswer) -> None:
        """Read one answer to its end, in a thread, so that it is stored in any case."""
        sent_thought = sent_text = 0  # characters
        sent_calls: tuple[WrittenCall, ...] = ()
        try:
            for update in answer:
                new = update.thought[sent_thought:], update.text[sent_text:]
                sent_thought, sent_text = len(update.thought), len(update.text)
                calls, sent_calls = new_call_pieces(update.calls, sent_calls), update.calls
                is_last = update.status != "streaming"
                small = update if is_last else replace(update, thought="", text="", calls=())
                self._send(Piece(index, *new, small, calls))
        except Exception as error:  # noqa: BLE001 - the thread's edge: the reader waits for an end
            if not isinstance(error, BurnishError):
                error = BurnishError(f"the answer was lost: {type(error).__name__}")
            self._send(Piece(index, "", "", AnswerUpdate(None, "", "", "failed", error=error)))

    def _send(self, piece: Piece) -> None:
        with suppress(RuntimeError):  # the event loop is closed: there is no reader
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
