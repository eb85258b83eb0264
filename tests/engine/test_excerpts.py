"""A long text begins alike in every list."""

from __future__ import annotations

import pytest

from engine.excerpts import one_line


@pytest.mark.parametrize(
    ("text", "limit_chars", "shown"),
    [
        ("  two\n words ", 9, "two words"),
        ("four words of text", 8, "four…"),  # eight characters with the sign, and no half word
        ("incomprehensible", 8, "incompr…"),  # one word alone is cut
    ],
)
def test_a_text_is_shown_on_one_line_of_whole_words(
    text: str, limit_chars: int, shown: str
) -> None:
    assert one_line(text, limit_chars) == shown
