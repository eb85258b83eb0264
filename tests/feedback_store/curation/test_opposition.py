"""People who want answers of opposite length are told apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from feedback_store.curation.alerts import find_alerts
from feedback_store.curation.opposition import LengthStatement, find_opposition
from feedback_store.records import ChoiceValue, CurrentChoice, CurrentVote
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations

LENGTHS = {
    f"{size}{n}": (400 if size == "long" else 40) for size in ("long", "short") for n in range(40)
}


def chooses(user: str, better: str, count: int) -> list[LengthStatement]:
    """So many choices between a long and a short answer."""
    choice: ChoiceValue = "left" if better == "long" else "right"
    return [CurrentChoice(n, f"long{n}", f"short{n}", user, choice, n) for n in range(count)]


def votes(user: str, up: str, count: int) -> list[LengthStatement]:
    """So many votes on long and on short answers, up for one of the two sizes."""
    return [
        CurrentVote(2 * n + (size == "long"), f"{size}{n}", user, 1 if size == up else -1, n)
        for n in range(count)
        for size in ("short", "long")
    ]


def opposed(statements: Sequence[LengthStatement]) -> list[tuple[str, ...]]:
    return [alert.users for alert in find_opposition(statements, LENGTHS)]


def test_opposite_choices_are_told_apart() -> None:
    # All of nine on one side: 2 / 512 = 0.0039, below 0.01 / 2
    found = find_opposition([*chooses("ann", "long", 9), *chooses("bob", "short", 9)], LENGTHS)
    assert [(a.kind, a.users, a.count, a.begin, a.end) for a in found] == [
        ("opposed", ("ann", "bob"), 18, 0, 8)
    ]


def test_opposite_votes_are_told_apart() -> None:
    assert opposed([*votes("ann", "long", 6), *votes("bob", "short", 6)]) == [("ann", "bob")]


def test_a_few_statements_tell_nothing() -> None:
    # All of eight: 2 / 256 = 0.0078, not below 0.01 / 2
    assert opposed([*chooses("ann", "long", 8), *chooses("bob", "short", 8)]) == []


@pytest.mark.parametrize("better", ["long", "short"])
def test_people_of_one_opinion_are_not_opposed(better: str) -> None:
    assert opposed([*chooses("ann", better, 30), *chooses("bob", better, 30)]) == []


def test_who_likes_everything_has_no_wish_for_length() -> None:
    likes_all: list[LengthStatement] = [
        CurrentVote(n, answer_id, "ann", 1, n) for n, answer_id in enumerate(LENGTHS)
    ]
    assert opposed([*likes_all, *chooses("bob", "short", 30)]) == []


def test_ties_and_equal_lengths_tell_nothing() -> None:
    ties: list[LengthStatement] = [
        CurrentChoice(n, f"long{n}", f"short{n}", "ann", "tie", n) for n in range(30)
    ]
    alike: list[LengthStatement] = [
        CurrentChoice(n, f"long{n}", f"long{n + 1}", "ann", "left", n) for n in range(30)
    ]
    assert opposed([*ties, *alike, *chooses("bob", "short", 30)]) == []


def test_the_alert_is_shown_with_the_others(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    choices: dict[str, ChoiceValue] = {"ann": "left", "bob": "right"}
    for user, chosen in choices.items():
        for number in range(9):
            long = talk.ask(text=f"Answer {number} " * 20, user=user, conversation=f"of {user}")
            short = talk.again(long, f"Answer {number}.", user=user)
            comparison = store.compare(long, short, user)
            store.choose(comparison.id, user, chosen)
    (alert,) = find_alerts(database, since=0)
    assert (alert["kind"], alert["users"], alert["count"]) == ("opposed", ["ann", "bob"], 18)
    assert alert["explanation"].startswith("People who want longer answers: 1; shorter ones: 1.")
    assert "Answer 0" in alert["text"]
