"""How the pages show what went wrong."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from app.ui.texts import DEFAULT, error_text
from engine.errors import BurnishError


@contextmanager
def report_errors(language: str = DEFAULT) -> Iterator[None]:
    """Turn an error of the tree into a message in the page, in a language."""
    try:
        yield
    except BurnishError as error:
        raise gr.Error(escaped(error_text(error, language)), print_exception=False) from error


def escaped(message: object) -> str:
    """A message as text: gradio draws what it is given as HTML."""
    return html.escape(str(message), quote=False)
