"""Offers of a comparison, and the release of the second answer."""

from __future__ import annotations

from typing import cast

import pytest

from app.answering.comparing import Comparisons, difference
from app.answering.conversation import Chat


def comparisons(rate: float, *drawn: float) -> Comparisons:
    numbers = iter(drawn)
    chat = cast(Chat, None)  # nothing is asked
    return Comparisons(chat, lambda _user, _answer: None, rate, lambda: next(numbers))


def test_the_difference_is_the_share_of_words_that_one_text_alone_has() -> None:
    assert difference("Salt water", "salt water!") == 0
    assert difference("salt water", "sweet water") == pytest.approx(2 / 3)
    assert difference("salt", "sugar") == 1
    assert difference("海水", "湖水") == 1
    assert difference("", "") == 0


def test_twice_as_many_are_drawn_as_are_offered() -> None:
    drawn = comparisons(0.1, 0.0, 0.19, 0.2, 0.9)
    assert [drawn.is_due("ann") for _ in range(4)] == [True, True, False, False]


def test_a_rate_of_0_offers_nothing() -> None:
    assert not comparisons(0.0, 0.0).is_due("ann")


def test_nobody_gets_two_offers_in_a_row() -> None:
    drawn = comparisons(0.5, 0.0, 0.0, 0.0)
    assert drawn.is_due("ann") and drawn.is_offered("ann", "salt", "sugar")
    assert not drawn.is_due("ann")
    assert drawn.is_due("bob")  # somebody else
    assert drawn.is_due("ann")


def test_those_that_differ_as_much_as_every_second_pair_are_offered() -> None:
    drawn = comparisons(0.5)
    pairs = [
        ("salt water", "sweet water"),
        ("salt", "sugar"),
        ("salt water", "salt sea water"),
        ("salt water", "sweet water"),
    ]
    # 0.67; 1; 0.33; 0.67 of 0.33, 0.67, 0.67 and 1
    assert [drawn.is_offered("ann", *two) for two in pairs] == [True, True, False, True]


def test_the_same_answer_twice_is_never_offered() -> None:
    assert not comparisons(0.5).is_offered("ann", "salt", "Salt.")


@pytest.mark.parametrize(("candidate", "adapter"), [(None, "live"), ("sha256:new", "sha256:new")])
def test_the_second_answer_is_the_candidates_where_one_waits(
    candidate: str | None, adapter: str
) -> None:
    asked = []

    class Asked:
        def regenerate(self, *who: str, **how: object) -> list[None]:
            asked.append((who, how["to_compare"], how["adapter"]))
            return []

    chat = cast(Chat, Asked())
    list(Comparisons(chat, lambda _user, _answer: candidate, 0.1).second_answer("ann", "a1"))
    assert asked == [(("ann", "a1"), True, adapter)]
