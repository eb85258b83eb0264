"""The common beginning of two sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.common_prefix import common_prefix_length


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [("", "", 0), ("", "a", 0), ("abc", "abc", 3), ("abc", "abd", 2), ("abc", "abcde", 3)],
)
def test_texts(one: str, other: str, length: int) -> None:
    assert common_prefix_length(one, other) == length
    assert common_prefix_length(tuple(one), tuple(other)) == length


@given(st.text("ab"), st.text("ab"))
def test_the_next_elements_differ(one: str, other: str) -> None:
    shared = common_prefix_length(one, other)
    assert one[:shared] == other[:shared]
    assert shared == min(len(one), len(other)) or one[shared] != other[shared]
