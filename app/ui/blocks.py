"""gr.Blocks that answers malformed calls in one sentence and logs no user input.

Gradio prints a traceback, with the values that were sent, for each call that it cannot make.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException

from app.error_log import log_unexpected

# Gradio runs 40 events at a time by default, and a waiting answer is one. The engine bounds the
# answers, and the threads that handlers share bound the rest
MAX_EVENTS = 1000


class PageBlocks(gr.Blocks):
    """Refuses invalid calls of handlers, and logs a failed handler without its inputs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(analytics_enabled=False, **options)
        self.max_threads = MAX_EVENTS

    def __exit__(self, *exit_arguments: Any) -> None:
        """Make unknown handlers answer 404, once the handlers are known."""
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
            raise gr.Error("This did not work.", print_exception=False) from None


class _Handlers(dict[int, Any]):
    """A page's handlers by number."""

    def __missing__(self, number: int) -> Any:
        raise HTTPException(404, f"this page has no event number {number}")
