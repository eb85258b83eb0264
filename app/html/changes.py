"""The changes of a correction as HTML: removed and added words."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from feedback_store.examples.explanation import TextChange


def changes_html(changes: Iterable[TextChange]) -> str:
    """Return the changes as inline HTML."""
    tags = {"same": "{}", "removed": "<del>{}</del>", "added": "<ins>{}</ins>"}
    pieces = (tags[kind].format(escape(words, quote=False)) for kind, words in changes)
    return f'<div class="changes" dir="auto">{"".join(pieces)}</div>'
