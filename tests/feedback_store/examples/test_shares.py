"""How many examples one user may have a part in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInput
from feedback_store.examples.shares import over_cap, share_cap, users_of
from feedback_store.examples.types import IMPORTED
from feedback_store.records import OPERATOR
from tests.feedback_store.helpers import voted_pair

# An item is the tuple of its users.
MANY = st.lists(st.sets(st.sampled_from("abcdefgh"), max_size=3).map(tuple), max_size=60)
SKEWED = st.lists(
    st.sampled_from([("a",)] * 20 + [("a", "b")] * 5 + [("b",), ("c",), ("c", "d"), ("e",), ()]),
    max_size=120,
)


def cap_per_user(
    items: Sequence[Any],
    users_of: Callable[[Any], Iterable[str]],
    *,
    share: float = 0.2,
    floor: int = 50,
) -> set[int]:
    """Positions of the items beyond some user's share."""
    users = [set(users_of(item)) for item in items]
    counts = Counter(user for some in users for user in some)
    cap = share_cap(len(items), counts, share=share, floor=floor)
    return {position for position, over in enumerate(over_cap(users, cap)) if over}


def capped(
    items: Sequence[tuple[str, ...]], share: float = 0.2, floor: int = 50
) -> list[tuple[str, ...]]:
    exceeding = cap_per_user(items, lambda item: item, share=share, floor=floor)
    return [item for position, item in enumerate(items) if position not in exceeding]


@given(MANY | SKEWED, st.sampled_from([0.1, 0.2, 1 / 3, 0.5, 1.0]), st.integers(0, 60))
def test_of_what_is_kept_no_user_has_more_than_the_share(
    items: list[tuple[str, ...]], share: float, floor: int
) -> None:
    users = len({user for item in items for user in item})
    kept = capped(items, share, floor)
    for count in Counter(user for item in kept for user in item).values():
        assert count <= max(floor, max(share, 1 / users) * len(kept) + 1e-9)


@given(MANY | SKEWED, st.integers(0, 60))
def test_nothing_is_set_aside_but_what_a_user_over_the_cap_had_a_part_in(
    items: list[tuple[str, ...]], floor: int
) -> None:
    counts = Counter(user for item in items for user in item)
    for position in cap_per_user(items, lambda item: item, floor=floor):
        assert any(counts[user] > floor for user in items[position])


def test_a_user_who_votes_ten_thousand_times_is_cut_to_a_fifth() -> None:
    """100 others with 8 each are 800, which are four fifths of 1,000."""
    items = [("flood",)] * 10_000 + [(f"user{n % 100}",) for n in range(800)]
    kept = capped(items)
    assert (len(kept), kept.count(("flood",))) == (1000, 200)


def test_the_share_is_of_what_remains_and_not_of_what_there_was() -> None:
    """Two floods: with c each, 2 c + 600 remain, and c = 0.2 * (2 c + 600) for c = 200. A fifth
    of all 2,600 would have been 520 each, and together 63% of what remained."""
    items = [("x",)] * 1000 + [("y",)] * 1000 + [(f"user{n % 10}",) for n in range(600)]
    kept = Counter(capped(items))
    assert (kept["x",], kept["y",]) == (200, 200)
    assert sum(kept.values()) == 1000


def test_a_single_user_is_never_capped() -> None:
    assert cap_per_user([("ann",)] * 10_000, lambda item: item) == set()


def test_two_users_may_have_half_each() -> None:
    assert Counter(capped([("ann",)] * 300 + [("bob",)] * 200)) == {("ann",): 200, ("bob",): 200}


def test_as_many_users_as_items_are_all_kept() -> None:
    """Each has 1 / 49 of 49 items, whatever floating point says of the product."""
    items = [(f"user{n}",) for n in range(49)]
    assert cap_per_user(items, lambda item: item, share=0.01, floor=0) == set()


def test_everyone_may_have_the_floor() -> None:
    kept = Counter(capped([("ann",)] * 80 + [("bob",)] * 3))
    assert kept == {("ann",): 50, ("bob",): 3}


def test_an_item_of_two_users_counts_for_both() -> None:
    """Ann has a part in everything, so no cap under which anything remains brings her to a fifth:
    she has the floor."""
    kept = capped([("ann", f"user{n}") for n in range(100)])
    assert len(kept) == 50


def test_items_without_a_user_are_always_kept() -> None:
    items: list[tuple[str, ...]] = [()] * 10
    items += [("ann",)] * 100 + [("bob",)] * 100
    assert capped(items, floor=0)[:10] == [()] * 10
    assert cap_per_user([()] * 10, lambda item: item) == set()


def test_the_earliest_of_a_user_are_kept() -> None:
    items = [("ann",), ("bob",), ("ann",), ("ann",), ("bob",)]
    assert cap_per_user(items, lambda item: item, share=0.5, floor=0) == {3}


def test_nothing_to_cap() -> None:
    assert cap_per_user([], lambda item: ["ann"]) == set()


@pytest.mark.parametrize(("share", "floor"), [(0.0, 50), (1.1, 50), (math.nan, 50), (0.2, -1)])
def test_a_share_that_makes_no_sense_is_refused(share: float, floor: int) -> None:
    with pytest.raises(InvalidInput, match="share"):
        cap_per_user([("ann",)], lambda item: item, share=share, floor=floor)


def test_a_choice_counts_for_who_asked_and_for_no_reviewer() -> None:
    pair = voted_pair("c1", user="ann")
    chosen = replace(pair, source="comparison")
    for judge, counts_for in (("ann", ("ann",)), ("rita", ()), (OPERATOR, ())):
        origin = replace(pair.origin, user_ids=(judge,), asked_by="ann")
        assert users_of(replace(chosen, origin=origin)) == counts_for
    assert users_of(pair) == ("ann",)
    imported = replace(pair, rejected=replace(pair.rejected, base=IMPORTED))
    assert users_of(imported) == ()
