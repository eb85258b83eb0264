"""Answers that make no example are set aside with their reason."""

from __future__ import annotations

import pytest

from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.rules import IDENTICAL, Rules
from feedback_store.records import AnswerStatus
from tests.feedback_store.examples.results import lone, reasons, shown
from tests.feedback_store.helpers import reply, said


@pytest.mark.parametrize("status", ["aborted", "failed", "streaming"])
@pytest.mark.parametrize(("vote", "sibling_vote"), [(1, -1), (-1, 1)])
def test_an_answer_that_never_ended_is_set_aside(
    status: AnswerStatus, vote: int, sibling_vote: int
) -> None:
    broken = reply("a", "Half an ans", status=status, complete=False)
    votes = [(1, "a", "ann", vote), (2, "b", "ann", sibling_vote)]
    result = build_prompt_examples(said(broken, reply("b", "B."), votes=votes))
    assert (result.pairs, lone(result)) == ([], [("B.", sibling_vote > 0)])
    assert reasons(result) == {"empty or aborted answer": 1}


def test_an_empty_answer_is_set_aside() -> None:
    votes = [(1, "a", "ann", -1), (2, "b", "ann", 1)]
    result = build_prompt_examples(said(reply("a", " \n"), reply("b", "B."), votes=votes))
    assert result.pairs == []
    assert reasons(result) == {"empty or aborted answer": 1}


def test_an_answer_that_nobody_judged_is_not_counted_as_set_aside() -> None:
    result = build_prompt_examples(
        said(reply("a", ""), reply("b", "B."), votes=[(1, "b", "ann", 1)])
    )
    assert result.set_aside == []


def test_a_choice_beside_an_answer_that_cannot_be_used_is_counted_once() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "", status="failed"),
            reply("b", "B."),
            votes=[(1, "a", "ann", -1)],
            choices=[(2, "a", "b", "ann", "right")],
        )
    )
    (aside,) = result.set_aside
    assert (aside.answer_ids, aside.event_ids) == (("a",), (1, 2))
    assert list(result.every) == []


def test_an_answer_that_was_cut_off_is_never_the_better_one() -> None:
    cut = reply("a", "A leaf is a", status="stopped", complete=False)
    votes = [(1, "a", "ann", 1), (2, "b", "ann", -1)]
    result = build_prompt_examples(said(cut, reply("b", "B."), votes=votes))
    assert (result.pairs, lone(result)) == ([], [("A leaf is a", True), ("B.", False)])
    assert reasons(result) == {"chosen answer is cut off": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A leaf.", "a  LEAF.\n"),
        ("ﬁne", "fine"),  # the ligature, compatibility-equivalent
        ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
        ("1２", "12"),  # full width
    ],
)
def test_sides_that_read_the_same_teach_nothing(one: str, other: str) -> None:
    """Not as a pair, and not as one text that is both good and bad."""
    votes = [(1, "a", "ann", 1), (2, "b", "ann", -1)]
    result = build_prompt_examples(said(reply("a", one), reply("b", other), votes=votes))
    assert list(result.every) == []
    (aside,) = result.set_aside
    assert (aside.reason, aside.answer_ids, aside.event_ids) == (IDENTICAL, ("a", "b"), (1, 2))


def test_a_correction_that_changes_no_word_is_no_preference() -> None:
    result = build_prompt_examples(
        said(reply("a", "A leaf."), corrections=[(1, "a", "ann", " A  leaf.")])
    )
    assert result.pairs == []
    assert reasons(result) == {IDENTICAL: 1}


@pytest.mark.parametrize("over", [0, 1])
def test_thought_and_answer_together_have_a_length_limit(over: int) -> None:
    long = reply("a", "x" * 60, thought="y" * (40 + over))
    votes = [(1, "a", "ann", 1), (2, "b", "ann", -1)]
    result = build_prompt_examples(
        said(long, reply("b", "B."), votes=votes), Rules(max_answer_chars=100)
    )
    assert len(result.pairs) == 1 - over
    assert reasons(result) == ({"answer over the length limit": 1} if over else {})


def test_a_correction_over_the_length_limit_is_set_aside() -> None:
    evidence = said(reply("a", "A."), corrections=[(1, "a", "ann", "x" * 101)])
    result = build_prompt_examples(evidence, Rules(max_answer_chars=100))
    assert list(result.every) == []
    assert reasons(result) == {"answer over the length limit": 1}


def test_a_flagged_answer_and_its_thought_are_kept_out() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "Vile.", thought="Vile thought."),
            reply("b", "Good."),
            votes=[(1, "b", "ann", 1), (2, "a", "ann", -1)],
            corrections=[(3, "a", "bob", "Kind.")],
            flagged=["a"],
        )
    )
    used = str([example.as_dict() for example in result.every])
    assert "Vile" not in used
    assert sorted(shown(result)) == ["Good.", "Kind."]
    assert reasons(result) == {"red-flagged text": 2}  # the thumb and the correction
