"""Statements that contradict what a release has learnt are found; others are not."""

from __future__ import annotations

from deploy.rounds.changed_wishes import contradicts, measure_agreement
from feedback_store.examples.types import Pair, Unpaired
from tests.support.pairs import row
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.evaluation.statistics import Interval

RELEASE = "sha256:" + "a" * 64
INDIFFERENT = Voice(sensible)


def prefers_short(completion: str) -> float:
    return -1.0 if completion == "Short." else -2.0


def asked(count: int, chosen: str, rejected: str) -> list[Pair]:
    """So many pairs, each of a conversation of its own."""
    return [row(f"Question {number}?", chosen, rejected) for number in range(count)]


def agreement(pairs: list[Pair]) -> Interval | None:
    """That of a release which learnt to prefer short answers to long ones."""
    engine = ScriptedEngine({None: INDIFFERENT, RELEASE: Voice(sensible, prefers_short)})
    return measure_agreement(engine, RELEASE, pairs, [])


def test_statements_of_the_opposite_wish_contradict() -> None:
    found = agreement(asked(8, "Long, long.", "Short."))
    assert found == Interval(0.0, 0.0, 0.0)
    assert contradicts(found)


def test_thumbs_of_the_opposite_wish_contradict() -> None:
    pairs = asked(8, "Long, long.", "Short.")
    judged = [
        Unpaired(f"u{n}", pair.prompt, pair.sides[n % 2], n % 2 == 0, "vote", pair.origin)
        for n, pair in enumerate(pairs)
    ]
    engine = ScriptedEngine({None: INDIFFERENT, RELEASE: Voice(sensible, prefers_short)})
    found = measure_agreement(engine, RELEASE, [], judged)
    assert found == Interval(0.0, 0.0, 0.0)  # four liked long answers, four disliked short ones
    assert contradicts(found)


def test_statements_of_the_same_wish_do_not() -> None:
    assert not contradicts(agreement(asked(8, "Short.", "Long, long.")))


def test_statements_that_the_release_cannot_tell_apart_do_not() -> None:
    found = agreement(asked(8, "Long, long.", "Long, too."))
    assert found == Interval(0.5, 0.5, 0.5)
    assert not contradicts(found)


def test_some_contrary_statements_among_as_many_others_are_no_change() -> None:
    mixed = [*asked(40, "Long, long.", "Short.")[:24], *asked(40, "Short.", "Long, long.")[24:]]
    found = agreement(mixed)
    assert found is not None
    assert found.estimate == 16 / 40
    assert not contradicts(found)


def test_few_conversations_tell_nothing() -> None:
    assert agreement(asked(7, "Long, long.", "Short.")) is None
    assert not contradicts(None)
