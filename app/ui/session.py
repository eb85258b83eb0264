"""Who uses a page, and the Stop button of each browser tab. Knows gradio's requests, no widgets."""

from __future__ import annotations

import threading
from typing import Any

import gradio as gr

from app.conversation import StopButton
from app.ui.exchange import Page
from app.ui.texts import toast
from app.web.identity import user_of

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
    """What a stream that nobody looks at any more says last: gradio repeats its last outputs when
    it ends, and would draw the old ones over what is there now."""
    return (gr.skip(),) * outputs


class Stops:
    """One button for each tab with a running answer."""

    def __init__(self) -> None:
        self._buttons: dict[str, StopButton] = {}
        self._ended = threading.Condition()

    def begin(self, request: gr.Request) -> StopButton:
        """A fresh button, for an answer that begins now."""
        button = self._buttons[_tab(request)] = StopButton()
        return button

    def press(self, request: gr.Request) -> None:
        """End the tab's running answer; also called when the tab closes."""
        if button := self._buttons.get(_tab(request)):
            button.press()

    def end(self, button: StopButton, request: gr.Request) -> None:
        """An answer has ended; the tab may have begun another one in the meantime."""
        with self._ended:
            if self._buttons.get(_tab(request)) is button:
                del self._buttons[_tab(request)]
            self._ended.notify_all()

    def leave(self, request: gr.Request) -> None:
        """End the tab's running answer and wait until it draws no more, so that what is drawn next
        stays."""
        self.press(request)
        with self._ended:
            self._ended.wait_for(lambda: _tab(request) not in self._buttons, LONGEST_WAIT_SECONDS)


def _tab(request: gr.Request) -> str:
    return str(request.session_hash)
