"""Error messages on the gradio pages."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from app.texts import DEFAULT, error_text
from engine.errors import BurnishError


@contextmanager
def report_errors(language: str = DEFAULT) -> Iterator[None]:
    """Turn a Burnish error within the block into gradio's error message, in a language."""
    try:
        yield
    except BurnishError as error:
        raise gr.Error(escaped(error_text(error, language)), print_exception=False) from error


def escaped(message: object) -> str:
    """Return a message with HTML escaped, since gradio renders messages as HTML."""
    return html.escape(str(message), quote=False)
