"""Answers that are being generated, each followed by any number of pages.

Each answer is read to its end in a thread of its own: closing a page stops nothing. A page that
joins later gets the text so far and then the rest. This module knows nothing of HTTP and HTML.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import suppress

from app.answering.answering import AnswerUpdate, RunningAnswer
from app.error_log import log_unexpected
from engine.errors import BurnishError, Overloaded
from feedback_store.storage.turns import new_id

PAUSE_FACTOR = 9.0  # pause after drawing, as a multiple of the time that drawing took
MAX_PAUSE_SECONDS = 0.5
STOPPED_AGAIN_SECONDS = 0.1
AnswerFactory = Callable[[], RunningAnswer]


class LiveAnswer:
    """One answer that is being generated. `id` is the stored answer's, or a number if none is."""

    def __init__(self, user_id: str, conversation_id: str | None) -> None:
        self.user_id = user_id
        self.conversation_id = conversation_id
        self.id = ""
        self.begun_at = time.time()
        self.thought_ended_at: float | None = None
        self._running: RunningAnswer | None = None
        self._latest: AnswerUpdate | None = None
        self._followers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()  # guards the two above

    def stop(self) -> None:
        """End the answer within a step; the text so far is kept."""
        assert self._running is not None
        self._running.cancel()

    @property
    def latest(self) -> AnswerUpdate:
        """The newest update."""
        assert self._latest is not None
        return self._latest

    async def updates(self, pause: float = 0.0) -> AsyncIterator[AnswerUpdate]:
        """Yield the newest update, then later ones as they come, the last one at the end.

        Each update holds the whole text, so a slow reader skips to the newest one. After drawing
        an update the reader waits at least `pause` seconds for the next one, and longer if drawing
        was slow, since drawing takes processor time from the model.
        """
        changed = asyncio.Event()
        with self._lock:
            self._followers[changed] = asyncio.get_running_loop()
        try:
            shown: AnswerUpdate | None = None
            while shown is None or shown.status == "streaming":
                changed.clear()
                latest = self.latest
                if latest is shown:
                    await changed.wait()
                    continue
                shown = latest
                drawing = time.perf_counter()
                yield shown
                drawing = time.perf_counter() - drawing
                if shown.text or shown.thought:
                    await self._pause(
                        changed, min(max(pause, PAUSE_FACTOR * drawing), MAX_PAUSE_SECONDS)
                    )
        finally:
            with self._lock:
                del self._followers[changed]

    async def _pause(self, changed: asyncio.Event, seconds: float) -> None:
        """Wait some seconds, or until the answer has ended."""
        until = time.monotonic() + seconds
        while self.latest.status == "streaming" and (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)
            changed.clear()

    def _show(self, update: AnswerUpdate) -> None:
        with self._lock:
            if self.thought_ended_at is None and update.thought and update.text:
                self.thought_ended_at = time.time()
            self._latest = update
            followers = tuple(self._followers.items())
        for changed, loop in followers:
            with suppress(RuntimeError):  # the event loop is closed: the server has ended
                loop.call_soon_threadsafe(changed.set)


class LiveAnswers:
    """All answers that are being generated, at most `max_per_person` for one person."""

    def __init__(self, max_per_person: int) -> None:
        self._max_per_person = max_per_person
        self._lock = threading.Lock()  # guards the two below
        self._ended = threading.Condition(self._lock)
        self._live: dict[str, LiveAnswer] = {}
        self._waiting: dict[str, int] = {}  # answers per person, including those not yet started

    def start(self, user_id: str, conversation_id: str | None, begin: AnswerFactory) -> LiveAnswer:
        """Start an answer and return once its start is stored.

        Raises the errors of `begin`, and `Overloaded` where the person
        waits for `max_per_person` answers.
        """
        self._admit(user_id)
        live = LiveAnswer(user_id, conversation_id)
        begun: Future[None] = Future()
        threading.Thread(
            target=self._read, args=(live, begin, begun), name="burnish-answer", daemon=True
        ).start()
        begun.result()
        return live

    @property
    def busy(self) -> bool:
        """Return whether any answer is being generated."""
        with self._lock:
            return any(live.latest.status == "streaming" for live in self._live.values())

    def find(self, answer_id: str, user_id: str) -> LiveAnswer | None:
        """Return the person's running answer with that id, or None."""
        live = self._live.get(answer_id)
        return live if live is not None and live.user_id == user_id else None

    def of_conversation(self, conversation_id: str, user_id: str) -> list[LiveAnswer]:
        """Return the person's running answers in a conversation."""
        with self._lock:
            running = tuple(self._live.values())
        return [a for a in running if (a.conversation_id, a.user_id) == (conversation_id, user_id)]

    def stop_all(self, user_id: str) -> None:
        """Stop the person's answers, and wait until what was written of them is stored."""
        with self._ended:
            while user_id in self._waiting:
                for live in self._live.values():
                    if live.user_id == user_id:
                        live.stop()
                # An answer that has not begun yet can be stopped only later
                self._ended.wait(STOPPED_AGAIN_SECONDS)

    def _admit(self, user_id: str) -> None:
        with self._lock:
            waiting = self._waiting.get(user_id, 0)
            if waiting >= self._max_per_person:
                raise Overloaded(
                    f"{waiting} of your questions are still being answered; wait for one of"
                    " them to end, or stop it"
                )
            self._waiting[user_id] = waiting + 1

    def _read(self, live: LiveAnswer, begin: AnswerFactory, begun: Future[None]) -> None:
        """Read one answer to its end, in a thread, and notify its followers.

        The end is shown once the answer counts as running no longer: a page that has read the end
        may ask its next question at once.
        """
        try:
            ended = self._read_until_end(live, begin, begun)
        except BaseException as error:  # noqa: BLE001 - the thread's edge: `start` waits for it
            if not begun.done():
                self._forget(live)
                begun.set_exception(error)
                return
            if not isinstance(error, BurnishError):
                log_unexpected("an answer was lost", error)
                error = BurnishError("the answer was lost; the server's log says why")
            ended = AnswerUpdate(None, "", "", "failed", str(error), error=error)
        self._forget(live)
        live._show(ended)
        if not begun.done():
            begun.set_result(None)

    def _read_until_end(
        self, live: LiveAnswer, begin: AnswerFactory, begun: Future[None]
    ) -> AnswerUpdate:
        """Show each update but the last one, which is returned."""
        live._running = begin()
        update: AnswerUpdate | None = None
        for update in live._running:
            live.id = live.id or update.answer_id or new_id()
            if update.status == "streaming":
                live._show(update)
                if not begun.done():
                    with self._lock:
                        self._live[live.id] = live
                    begun.set_result(None)
        assert update is not None
        return update

    def _forget(self, live: LiveAnswer) -> None:
        """Count the answer as running no longer."""
        with self._lock:
            self._live.pop(live.id, None)
            left = self._waiting[live.user_id] - 1
            self._waiting[live.user_id] = left
            if not left:
                del self._waiting[live.user_id]
            self._ended.notify_all()
