"""The column headers of the console's tables, which gradio does not translate as it does labels."""

from __future__ import annotations

from collections.abc import Iterable

from app.texts import say


def column_headers(table: str, columns: Iterable[str], language: str) -> list[str]:
    """Return the headers of a table's columns, from the texts `console.<table>.<column>`."""
    return [say(f"console.{table}.{column}", language) for column in columns]
