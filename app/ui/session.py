"""Who uses a page, and that person's running answers: their updates, and the Stop buttons.

Knows gradio's requests, no widgets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import gradio as gr

from app.conversation import AnswerUpdate
from app.running_answers import StopButton
from app.ui.exchange import Page
from app.ui.texts import toast
from app.web.identity import user_of
from engine.errors import Overloaded

PAUSE = 4.0  # after drawing, as a multiple of the time that it took
LONGEST_PAUSE_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0  # a stopped answer ends within a step, unless the engine hangs


def user(request: gr.Request) -> str:
    """The person behind a request."""
    assert request.request is not None
    return user_of(request.request.session)


def last_answer(page: Page, request: gr.Request) -> str:
    """The page's last answer's id; an error in the page where there is none."""
    if page.last_answer_id is None:
        raise gr.Error(toast("no_answer", request), print_exception=False)
    return page.last_answer_id


def nothing(outputs: int) -> tuple[Any, ...]:
    """Final update of an abandoned stream: leaves every output unchanged.

    Gradio repeats the last update when a stream ends, and would draw it over what is there now. Not
    for other streams: the browser may draw it in place of the update that came just before.
    """
    return (gr.skip(),) * outputs


class Stops:
    """A Stop button for each running answer, and the bound on how many one person may have."""

    def __init__(self, max_per_person: int) -> None:
        self._max_per_person = max_per_person
        self._running: dict[StopButton, tuple[str, str]] = {}  # the tab and the person
        self._changed = threading.Condition()

    def begin(self, button: StopButton, request: gr.Request) -> None:
        """Note an answer that begins now.

        Raises `Overloaded` where the person waits for too many answers already.
        """
        person = user(request)
        with self._changed:
            unfinished = sum(each == person for _, each in self._running.values())
            if unfinished >= self._max_per_person:
                raise Overloaded(
                    f"{unfinished} of your questions are still being answered; wait for one of"
                    " them to end, or stop it"
                )
            self._running[button] = _tab(request), person

    def press(self, request: gr.Request) -> None:
        """End the tab's running answers; also called when the tab closes."""
        for button in self._of(request):
            button.press()

    def end(self, button: StopButton) -> None:
        """An answer has ended, or nobody reads it any more: the rest of it is not made."""
        button.press()
        with self._changed:
            self._running.pop(button, None)
            self._changed.notify_all()

    def leave(self, request: gr.Request) -> None:
        """End the tab's running answers and wait until they draw no more, so that what is drawn
        next stays."""
        self.press(request)
        with self._changed:
            self._changed.wait_for(lambda: not self._of(request), LONGEST_WAIT_SECONDS)

    def _of(self, request: gr.Request) -> list[StopButton]:
        return [button for button, (tab, _) in self._running.copy().items() if tab == _tab(request)]


async def latest_updates(updates: Iterator[AnswerUpdate]) -> AsyncIterator[AnswerUpdate]:
    """The updates of a running answer, read in a thread of its own to their end.

    An update holds the whole text, so a reader that is slower than the model is given the newest
    one; the last one always comes, and at once. An answer is drawn whole each time, which takes a
    while for a long one, so drawing has pauses. Raises what the iterator raises. Gradio would
    iterate in one of the few threads that all handlers share, where waiting answers would block
    votes.
    """
    said = _read_in_thread(updates)
    now = asyncio.get_running_loop().time
    waiting: AnswerUpdate | None = None  # to be drawn when the pause is over
    pause_ends = 0.0
    while True:
        try:
            async with asyncio.timeout_at(None if waiting is None else pause_ends):
                item = await said.get()
        except TimeoutError:
            assert waiting is not None
            begun = now()
            yield waiting
            waiting = None
            pause_ends = now() + min(PAUSE * (now() - begun), LONGEST_PAUSE_SECONDS)
            continue
        if isinstance(item, AnswerUpdate):
            waiting = item
            continue
        if waiting is not None:
            yield waiting
        if item is not None:
            raise item
        return


def _read_in_thread(
    updates: Iterator[AnswerUpdate],
) -> asyncio.Queue[AnswerUpdate | BaseException | None]:
    """A queue of the updates as they come; last the iterator's error, or None."""
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[AnswerUpdate | BaseException | None] = asyncio.Queue()

    def send(item: AnswerUpdate | BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            loop.call_soon_threadsafe(said.put_nowait, item)

    def read() -> None:
        try:
            for update in updates:
                send(update)
            send(None)
        except BaseException as error:  # noqa: BLE001 - carried to the reader
            send(error)

    threading.Thread(target=read, name="burnish-answer", daemon=True).start()
    return said


def _tab(request: gr.Request) -> str:
    return str(request.session_hash)
