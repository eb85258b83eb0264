"""The choice of one of two answers: the pair that it makes, and the thumbs that go before it."""

from __future__ import annotations

import pytest

from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.rules import OUTRANKED
from feedback_store.records import ChoiceValue
from tests.feedback_store.examples.results import lone, reasons, shown
from tests.feedback_store.helpers import reply, said, texts


@pytest.mark.parametrize(
    ("choice", "expected"), [("left", ("Left.", "Right.")), ("right", ("Right.", "Left."))]
)
def test_the_answer_chosen_of_two_is_preferred(
    choice: ChoiceValue, expected: tuple[str, str]
) -> None:
    result = build_prompt_examples(
        said(reply("a", "Left."), reply("b", "Right."), choices=[(1, "a", "b", "ann", choice)])
    )
    (pair,) = result.pairs
    assert (texts([pair]), pair.source, pair.origin.event_ids) == ([expected], "comparison", (1,))
    assert (result.unpaired, result.demonstrations, result.set_aside) == ([], [], [])


def test_people_who_saw_the_two_in_other_places_and_agree_make_one_pair() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "A."),
            reply("b", "B."),
            choices=[(1, "a", "b", "ann", "left"), (2, "b", "a", "bob", "right")],
        )
    )
    (pair,) = result.pairs
    assert texts([pair]) == [("A.", "B.")]
    assert (pair.origin.event_ids, pair.origin.user_ids) == ((1, 2), ("ann", "bob"))


def test_people_who_choose_differently_make_no_pair_and_thumbs_do_not_decide_it() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "A."),
            reply("b", "B."),
            votes=[(1, "a", "cyd", 1), (2, "b", "cyd", -1)],
            choices=[(3, "a", "b", "ann", "left"), (4, "a", "b", "bob", "right")],
        )
    )
    assert result.pairs == []
    assert reasons(result) == {"contested": 1}
    assert lone(result) == [("A.", True), ("B.", False)]


def test_a_person_who_compares_two_answers_again_has_changed_their_mind() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "A."),
            reply("b", "B."),
            choices=[(1, "a", "b", "ann", "left"), (2, "b", "a", "ann", "left")],
        )
    )
    assert texts(result.pairs) == [("B.", "A.")]
    assert result.pairs[0].origin.event_ids == (2,)
    assert [(item.reason, item.event_ids) for item in result.set_aside] == [(OUTRANKED, (1,))]


def test_a_tie_settles_that_thumbs_make_no_pair_of_the_two() -> None:
    result = build_prompt_examples(
        said(
            *(reply(name, f"{name}.") for name in "abc"),
            votes=[(1, "a", "ann", 1), (2, "b", "ann", -1), (3, "c", "ann", -1)],
            choices=[(4, "a", "b", "ann", "tie")],
        )
    )
    assert texts(result.pairs) == [("a.", "c.")]
    assert reasons(result) == {"tie": 1}
    assert lone(result) == [("b.", False)]


def test_two_answers_that_are_both_bad_are_two_negatives() -> None:
    result = build_prompt_examples(
        said(reply("a", "A."), reply("b", "B."), choices=[(1, "a", "b", "ann", "both_bad")])
    )
    assert (result.pairs, lone(result)) == ([], [("A.", False), ("B.", False)])
    assert {each.source for each in result.unpaired} == {"comparison"}
    assert result.set_aside == []


def test_a_bad_answer_that_a_pair_uses_is_no_negative_besides() -> None:
    result = build_prompt_examples(
        said(
            *(reply(name, f"{name}.") for name in "abc"),
            choices=[(1, "a", "b", "ann", "both_bad"), (2, "a", "c", "ann", "right")],
        )
    )
    assert texts(result.pairs) == [("c.", "a.")]
    assert lone(result) == [("b.", False)]


def test_what_was_called_bad_beside_another_is_not_imitated_for_an_earlier_thumb() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "A."),
            reply("b", "B."),
            votes=[(1, "a", "ann", 1)],
            choices=[(2, "a", "b", "ann", "both_bad")],
        )
    )
    assert lone(result) == [("A.", False), ("B.", False)]
    assert shown(result) == []
    assert reasons(result) == {OUTRANKED: 1}


def test_a_later_thumb_of_the_same_person_takes_one_answer_out_of_both_bad() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "A."),
            reply("b", "B."),
            votes=[(2, "a", "ann", 1)],
            choices=[(1, "a", "b", "ann", "both_bad")],
        )
    )
    assert lone(result) == [("A.", True), ("B.", False)]
    assert shown(result) == ["A."]


@pytest.mark.parametrize(
    ("events", "pair", "source"),
    [((1, 2, 3), ("B.", "A."), "votes"), ((3, 1, 2), ("A.", "B."), "comparison")],
    ids=["thumbs later", "thumbs earlier"],
)
def test_opposite_thumbs_overtake_an_earlier_choice_of_the_same_person(
    events: tuple[int, int, int], pair: tuple[str, str], source: str
) -> None:
    choice, down, up = events
    result = build_prompt_examples(
        said(
            reply("a", "A."),
            reply("b", "B."),
            votes=[(down, "a", "ann", -1), (up, "b", "ann", 1)],
            choices=[(choice, "a", "b", "ann", "left")],
        )
    )
    assert texts(result.pairs) == [pair]
    assert result.pairs[0].source == source


def test_later_thumbs_of_somebody_else_do_not_overtake_a_choice() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "A."),
            reply("b", "B."),
            votes=[(2, "a", "bob", -1), (3, "b", "bob", 1)],
            choices=[(1, "a", "b", "ann", "left")],
        )
    )
    assert texts(result.pairs) == [("A.", "B.")]
    assert shown(result) == ["B."]
    assert [(item.reason, item.event_ids) for item in result.set_aside] == [(OUTRANKED, (2,))]
