"""The changes of a correction as coloured text: "−" marks removed words, "+" added ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from app.ui.labels import text
from feedback_store.examples.explanation import TextChange

SIGNS = {"same": None, "removed": "−", "added": "+"}


def changes_view() -> gr.HighlightedText:
    """Return the widget, hidden until there is a change to show."""
    return gr.HighlightedText(
        label=text("common.changes"),
        color_map={"−": "red", "+": "green"},
        visible=False,
        elem_id="changes",
    )


def changes_update(changes: Iterable[TextChange]) -> Any:
    """Return the widget's update: these changes, or hidden if there are none."""
    pieces = [(words, SIGNS[kind]) for kind, words in changes]
    return gr.update(value=pieces, visible=bool(pieces))
