"""Votes that no honest people cast are reported, and honest ones are not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from feedback_store.curation.bursts import find_bursts
from feedback_store.records import CurrentVote

DAY = 86_400.0


def vote(user: str, direction: int, at: float = 0.0, answer: str = "a") -> CurrentVote:
    return CurrentVote(0, answer, user, direction, at)


def calm(users: int = 20, days: int = 5) -> list[CurrentVote]:
    """Each user votes ten times a day, each time on another answer, about 7 minutes apart."""
    return [
        vote(f"user{n % users}", -1 if n % 3 else 1, DAY * n / (10 * users), f"answer{n}")
        for n in range(10 * users * days)
    ]


def brigade(
    users: Sequence[str], *, every: float = 20.0, begin: float = 2 * DAY + 1, answer: str = "x"
) -> list[CurrentVote]:
    return [vote(user, -1, begin + n * every, answer) for n, user in enumerate(users)]


OLD = [f"user{n}" for n in range(20)]
NEW = [f"new{n}" for n in range(20)]


def test_a_calm_store_raises_no_alert() -> None:
    assert find_bursts([], {}) == []
    assert find_bursts(calm(), {}) == []
    assert find_bursts(calm(users=1), {}) == []


@pytest.mark.parametrize(("count", "alerts"), [(20, 0), (21, 1)])
def test_more_votes_in_a_minute_than_a_person_can_read_are_reported(
    count: int, alerts: int
) -> None:
    """21 votes 2.9 s apart take 58 s."""
    votes = [vote("ann", 1, 100 + 2.9 * n, f"a{n:02}") for n in range(count)]
    found = find_bursts(votes, {})
    assert len(found) == alerts
    for alert in found:
        assert (alert.kind, alert.users, alert.vote, alert.count) == ("pace", ("ann",), 1, 21)
        assert alert.answer_ids == tuple(f"a{n:02}" for n in range(21))
        assert (alert.begin, alert.end) == (100, 100 + 2.9 * 20)
        assert "More than 20 votes" in alert.explanation


def test_a_minute_is_over_after_sixty_seconds() -> None:
    votes = [vote("ann", 1, 3.0 * n, f"a{n}") for n in range(20)]
    assert len(find_bursts([*votes, vote("ann", 1, 59.9, "last")], {})) == 1
    assert find_bursts([*votes, vote("ann", 1, 60.0, "last")], {}) == []


def test_a_flood_is_one_alert_and_two_floods_are_two() -> None:
    flood = [vote("ann", (-1) ** n, 0.5 * n, f"a{n}") for n in range(10_000)]
    again = [vote("ann", 1, DAY + n, f"b{n}") for n in range(30)]
    other = [vote("bob", 1, 0.5 * n, f"c{n}") for n in range(50)]
    found = find_bursts([*flood, *again, *other], {})
    assert [(a.users, a.count, a.vote) for a in found] == [
        (("ann",), 10_000, None),
        (("bob",), 50, 1),
        (("ann",), 30, 1),
    ]


def test_several_users_who_vote_a_text_down_within_minutes_are_reported() -> None:
    (alert,) = find_bursts(calm() + brigade(OLD[:5]), {})
    assert (alert.kind, alert.vote, alert.count) == ("brigade", -1, 5)
    assert alert.users == tuple(OLD[:5])
    assert alert.answer_ids == ("x",)
    assert (alert.begin, alert.end) == (2 * DAY + 1, 2 * DAY + 81)
    assert "5 users, 0 of them new" in alert.explanation


@pytest.mark.parametrize(
    ("users", "alerts"),
    [(OLD[:4], 0), (NEW[:2], 0), (NEW[:3], 1), ([*NEW[:2], OLD[0]], 1), ([NEW[0], *OLD[:3]], 0)],
)
def test_fewer_users_are_enough_where_most_are_new(users: list[str], alerts: int) -> None:
    assert len(find_bursts(calm() + brigade(users), {})) == alerts


def test_the_same_text_in_many_conversations_is_one_target() -> None:
    votes = [vote(user, -1, 2 * DAY + 20 * n, f"reply{n}") for n, user in enumerate(OLD[:6])]
    assert find_bursts(calm() + votes, {}) == []
    (alert,) = find_bursts(calm() + votes, {f"reply{n}": "hello" for n in range(6)})
    assert (alert.count, len(alert.answer_ids)) == (6, 6)


def test_users_who_vote_differently_are_no_brigade() -> None:
    votes = [vote(u, (-1) ** n, 2 * DAY + n, "x") for n, u in enumerate(OLD[:8])]
    assert find_bursts(calm() + votes, {}) == []


def test_the_same_votes_over_days_are_no_brigade() -> None:
    assert find_bursts(calm() + brigade(OLD[:8], every=DAY / 4, begin=DAY), {}) == []


def test_one_user_on_many_copies_of_a_text_is_no_crowd() -> None:
    votes = [vote("user0", -1, 2 * DAY + 20 * n, f"reply{n}") for n in range(10)]
    assert find_bursts(calm() + votes, {f"reply{n}": "hello" for n in range(10)}) == []


def test_a_text_that_everybody_always_votes_on_is_no_target() -> None:
    """A greeting that draws one vote in five draws them in a busy hour too."""
    busy = [vote(f"u{n % 50}", 1, 2 * DAY + 3 * n, f"busy{n}") for n in range(200)]
    votes = [replace(v, vote=1) for v in calm()] + busy
    same = {v.answer_id: "hello" for v in votes if v.answer_id[-1] in "05"}
    assert find_bursts(votes, same) == []


def test_a_store_that_was_filled_in_minutes_has_nothing_to_compare_with() -> None:
    assert find_bursts(brigade(OLD), {}) == []


def test_a_crowd_that_strikes_many_texts_at_once_does_not_hide_itself() -> None:
    """20 new users, 15 answers each, outnumber all the votes of a small store."""
    votes = [
        vote(user, -1, 2 * DAY + 10 * n + m / 10, f"x{n}")
        for n in range(15)
        for m, user in enumerate(NEW)
    ]
    found = find_bursts(calm(users=2) + votes, {})
    assert sorted(a.answer_ids[0] for a in found) == sorted(f"x{n}" for n in range(15))
    assert all(a.count == 20 for a in found)


def test_the_order_of_the_votes_does_not_matter() -> None:
    votes = calm() + brigade(NEW) + [vote("ann", 1, n, f"a{n}") for n in range(40)]
    found = find_bursts(votes, {})
    assert [alert.kind for alert in found] == ["pace", "brigade"]
    assert find_bursts(random.Random(0).sample(votes, len(votes)), {}) == found
