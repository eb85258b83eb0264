"""The beginnings of long texts, as lists of them show. Knows characters alone."""

from __future__ import annotations


def one_line(text: str, limit_chars: int) -> str:
    """The beginning of a text on one line, white space collapsed; see `cut_at_word`."""
    return cut_at_word(" ".join(text[: 2 * limit_chars].split()), limit_chars)


def cut_at_word(line: str, limit_chars: int) -> str:
    """The beginning of a line, with "…" where it was cut, after a word if that is not too short."""
    if len(line) <= limit_chars:
        return line
    head = line[: limit_chars - 1]
    word = head if line[limit_chars - 1] == " " else head.rpartition(" ")[0]
    return (word if len(word) >= limit_chars // 2 else head).rstrip() + "…"
