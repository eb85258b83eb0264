"""The heads of the console's tables, in a language: gradio translates labels, and these not."""

from __future__ import annotations

from collections.abc import Iterable

from app.ui.texts import say


def column_headers(table: str, columns: Iterable[str], language: str) -> list[str]:
    """The heads of a table's columns, from the texts `console.<table>.<column>`."""
    return [say(f"console.{table}.{column}", language) for column in columns]
