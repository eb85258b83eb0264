"""Patches add up to the HTML of the whole text, and are small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.html.incremental_html import IncrementalHtml
from app.html.rendering import answer_html

ALL_KINDS = (
    "# Title\n\nHello *world* 😀, this is `code`.\n\n- a\n- b\n\n  more of b\n\n1. one\n2. two\n\n"
    "```python\nx = 1\n\ny = 2\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\n"
    "\\[\nx\n\n= 1\n\\]\n\nThe end of $x$."
)


class Reader:
    """Apply patches as the page's script does."""

    def __init__(self) -> None:
        self.html = ""
        self.received_chars = 0

    def take(self, keep: int, tail: str) -> None:
        units = self.html.encode("utf-16-le")[: 2 * keep]
        self.html = units.decode("utf-16-le") + tail
        self.received_chars += len(tail)


def grown(text: str, step: int) -> Reader:
    growing, reader = IncrementalHtml(), Reader()
    for end in range(step, len(text), step):
        reader.take(*growing.update(text[:end]))
    reader.take(*growing.update(text, last=True))
    return reader


@pytest.mark.parametrize("step", [1, 3, 17])
def test_the_patches_add_up_to_the_whole(step: int) -> None:
    assert grown(ALL_KINDS, step).html == answer_html(ALL_KINDS)


def test_each_state_on_the_way_is_what_the_text_so_far_looks_like() -> None:
    growing, reader = IncrementalHtml(), Reader()
    for end in range(1, len(ALL_KINDS)):
        reader.take(*growing.update(ALL_KINDS[:end]))
        assert reader.html == answer_html(ALL_KINDS[:end])


@given(st.text(alphabet="ab\n*_`-#>|[]()$\\1. 😀", max_size=80))
def test_any_text_adds_up(text: str) -> None:
    assert grown(text, 1).html == answer_html(text)


def test_a_long_answer_is_sent_in_less_than_three_times_its_characters() -> None:
    text = "\n\n".join(f"Paragraph {n} has some words that follow each other." for n in range(40))
    assert grown(text, 5).received_chars < 3 * len(answer_html(text))


def test_one_that_becomes_shorter_is_drawn_anew() -> None:
    growing, reader = IncrementalHtml(), Reader()
    for text in ("One.\n\nTwo.\n\nThree.", "One."):
        reader.take(*growing.update(text))
    assert reader.html == answer_html("One.")
