"""gr.Blocks that answers malformed calls in one sentence and logs no user input.

Gradio prints a traceback with the values of the call for each call that fails.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.routes import App
from starlette.exceptions import HTTPException

from app.error_log import log_unexpected
from app.texts import DEFAULT, language_for, say

# Gradio's default is 40 concurrent events. The engine bounds the answers and the thread pool of the
# handlers the rest, so that this limit need not
MAX_EVENTS = 1000
QUEUE_PAUSE_SECONDS = 0.1
LONG_PAUSE_SECONDS = 1.0
_making_applications = threading.RLock()


class PageBlocks(gr.Blocks):
    """Blocks that refuse invalid calls, log failures without their inputs, and translate labels."""

    def __init__(self, *, has_events: bool = True, **options: Any) -> None:
        self.i18n_instance: Any = None  # until the page is mounted
        self._pause = QUEUE_PAUSE_SECONDS if has_events else LONG_PAUSE_SECONDS
        with _no_application():
            super().__init__(analytics_enabled=False, **options)
        self.max_threads = MAX_EVENTS

    def queue(self, *arguments: Any, **named: Any) -> PageBlocks:
        """Create the queue of the page's events, as gradio does, but poll it 10 times a second.

        Gradio polls the queue, and the progress of running events, a thousand times a second, which
        takes a tenth of a core of an idle server. No page here shows that progress.
        """
        with _no_application():
            super().queue(*arguments, **named)
        self._queue.sleep_when_free = self._pause
        self._queue.progress_update_sleep_when_free = LONG_PAUSE_SECONDS
        return self

    @property
    def config(self) -> Any:
        """The page's configuration, made once by gradio, with labels in the request's language."""
        labels: Any = self.i18n_instance
        sent = labels and labels.translations_dict
        return {**self._made_config, "i18n_translations": sent}

    @config.setter
    def config(self, made: Any) -> None:
        self._made_config = made

    def __exit__(self, *exit_arguments: Any) -> None:
        """Let unknown handlers answer 404 from now on: all handlers are defined."""
        with _no_application():
            super().__exit__(*exit_arguments)
        self.default_config.fns = _Handlers(self.default_config.fns)

    async def process_api(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Call a handler, as gradio does."""
        try:
            return dict(await super().process_api(*arguments, **named))
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 - the page's edge
            log_unexpected("a page's handler has failed", error)
            language = _language_of_call(named.get("request"))
            message = say("common.did_not_work", language)
            raise gr.Error(message, print_exception=False) from None


@contextmanager
def _no_application() -> Iterator[None]:
    """Keep gradio from creating a web application of 90 routes at each step.

    That takes most of a server's startup, and only the application that is created when the page
    is mounted is served.
    """
    with _making_applications:
        make = App.__dict__["create_app"]
        setattr(App, "create_app", lambda *_, **__: None)  # noqa: B010 - a type checker forbids it
        try:
            yield
        finally:
            setattr(App, "create_app", make)  # noqa: B010


def _language_of_call(request: object) -> str:
    """Return the person's language. Gradio passes a list of requests for batched calls."""
    first = request[0] if isinstance(request, list) and request else request
    return language_for(first) if isinstance(first, gr.Request) else DEFAULT


class _Handlers(dict[int, Any]):
    """A page's handlers by number."""

    def __missing__(self, number: int) -> Any:
        raise HTTPException(404, f"this page has no event number {number}")
