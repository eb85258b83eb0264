"""Which evidence becomes an example, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.messages import Message, Role
from engine.prompts.examples import Example
from engine.prompts.modes import make_template
from feedback_store.examples.pairing import PromptExamples, build_prompt_examples
from feedback_store.examples.rules import IDENTICAL, NO_QUESTION, OUTRANKED, USABLE, Rules
from feedback_store.examples.text_comparison import normalized
from feedback_store.examples.trust import JointVerdict, Trust
from feedback_store.examples.types import (
    PERSON,
    Demonstration,
    Origin,
    Pair,
    SetAside,
    Side,
    Unpaired,
    derived_id,
    pair_from_dict,
)
from feedback_store.records import (
    AnswerStatus,
    ChoiceValue,
    CurrentChoice,
    CurrentCorrection,
    CurrentVote,
    PromptEvidence,
)
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import PROMPT, examples_now, reply, said, texts

ALL_CHOICES: tuple[ChoiceValue, ...] = ("left", "right", "tie", "both_bad")


def reasons(result: PromptExamples) -> dict[str, int]:
    """How often each reason was given."""
    return dict(Counter(item.reason for item in result.set_aside))


def lone(result: PromptExamples) -> list[tuple[str, bool]]:
    """Text and label of each unpaired example."""
    return sorted((each.completion.text, each.label) for each in result.unpaired)


def shown(result: PromptExamples) -> list[str]:
    """The texts of the demonstrations."""
    return [each.completion.full_text for each in result.demonstrations]


# Prompts


@pytest.mark.parametrize("last", ["system", "assistant"])
def test_a_prompt_without_a_question_is_set_aside_whatever_was_said(last: Role) -> None:
    evidence = said(
        reply("a", "A lef."), votes=[(3, "a", "bob", 1)], corrections=[(7, "a", "ann", "A leaf.")]
    )
    result = build_prompt_examples(replace(evidence, prompt=(Message(last, "Be kind."),)))
    assert list(result.every) == []
    assert reasons(result) == {NO_QUESTION: 1}
    assert result.set_aside[0].event_ids == (3, 7)


# Corrections


def test_a_correction_is_preferred_to_what_it_corrects_and_worth_imitating() -> None:
    result = build_prompt_examples(
        said(reply("a", "A lef.", adapter="sha256:old"), corrections=[(7, "a", "ann", "A leaf.\n")])
    )
    better = Side("A leaf.", "", True, "a", "person", None)
    worse = Side("A lef.", "", True, "a", "sha256:base", "sha256:old")
    origin = Origin("c1", "hash", (7,), ("ann",))
    (pair,), (demonstration,) = result.pairs, result.demonstrations
    assert pair == Pair(pair.id, PROMPT, better, worse, "correction", origin)
    assert demonstration == Demonstration(demonstration.id, PROMPT, better, "correction", origin)
    assert (result.unpaired, result.set_aside) == ([], [])


def test_a_correction_keeps_the_thought_that_led_to_the_answer() -> None:
    answer = reply("a", "7", thought="3 and 3.")
    result = build_prompt_examples(said(answer, corrections=[(1, "a", "ann", "6")]))
    assert texts(result.pairs) == [("3 and 3.\nAnswer: 6", "3 and 3.\nAnswer: 7")]
    assert shown(result) == ["3 and 3.\nAnswer: 6"]


def test_an_example_keeps_how_thoughts_were_switched() -> None:
    """A correction has the switch of what it corrects; without one, a row is as it ever was."""
    quiet = reply("a", "A lef.", thinking=False)
    (pair,) = build_prompt_examples(said(quiet, corrections=[(1, "a", "ann", "A leaf.")])).pairs
    assert [side.thinking for side in pair.sides] == [False, False]
    assert pair_from_dict(pair.as_dict()) == pair
    plain = said(reply("a", "A lef."), corrections=[(1, "a", "ann", "A leaf.")])
    (pair,) = build_prompt_examples(plain).pairs
    assert [side.thinking for side in pair.sides] == [None, None]
    assert not [key for key in pair.as_dict() if key.endswith("_thinking")]


def test_who_corrected_an_answer_has_said_all_about_it() -> None:
    """Ann's thumbs are about the answer as it was before she said how it should be."""
    result = build_prompt_examples(
        said(
            reply("a", "Wrong."),
            reply("b", "Right."),
            votes=[(1, "a", "ann", -1), (2, "b", "ann", 1)],
            corrections=[(3, "a", "ann", "Exact.")],
        )
    )
    assert texts(result.pairs) == [("Exact.", "Wrong.")]
    assert lone(result) == [("Right.", True)]
    assert shown(result) == ["Exact.", "Right."]
    (aside,) = result.set_aside
    assert (aside.reason, aside.event_ids, aside.answer_ids) == (OUTRANKED, (1,), ("a",))


def test_somebody_elses_vote_counts_beside_a_correction() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "Wrong."),
            reply("b", "Right."),
            votes=[(1, "a", "bob", -1), (2, "b", "ann", 1)],
            corrections=[(3, "a", "ann", "Exact.")],
        )
    )
    assert texts(result.pairs) == [("Exact.", "Wrong."), ("Right.", "Wrong.")]
    assert result.set_aside == []


def test_two_people_who_correct_one_answer_give_two_pairs() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "A lef."),
            corrections=[(1, "a", "ann", "A leaf."), (2, "a", "bob", "One leaf.")],
        )
    )
    assert texts(result.pairs) == [("A leaf.", "A lef."), ("One leaf.", "A lef.")]
    assert len({example.id for example in result.every}) == 4


@pytest.mark.parametrize("status", ["aborted", "failed"])
def test_the_correction_of_a_broken_answer_is_a_demonstration_and_no_pair(
    status: AnswerStatus,
) -> None:
    """What is left of its thought is broken off too, and taught to nobody."""
    broken = reply("a", "Half", status=status, complete=False, thought="3 and")
    result = build_prompt_examples(said(broken, corrections=[(1, "a", "ann", "Six.")]))
    assert (result.pairs, shown(result)) == ([], ["Six."])
    assert reasons(result) == {"empty or aborted answer": 1}


# Choices


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


# Thumbs


def test_an_answer_voted_up_is_preferred_to_its_sibling_voted_down() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "Good.", adapter="sha256:new"),
            reply("b", "Bad."),
            votes=[(1, "b", "ann", -1), (2, "a", "ann", 1)],
        )
    )
    (pair,) = result.pairs
    assert (texts([pair]), pair.source) == ([("Good.", "Bad.")], "votes")
    assert (pair.chosen.adapter, pair.rejected.adapter) == ("sha256:new", None)
    assert sorted(pair.origin.event_ids) == [1, 2]
    assert pair.origin.user_ids == ("ann",)
    assert (result.unpaired, shown(result)) == ([], ["Good."])


def test_every_answer_voted_up_is_paired_with_every_one_voted_down() -> None:
    names = ("up1", "up2", "down1", "down2")
    result = build_prompt_examples(
        said(
            *(reply(name, name) for name in (*names, "no vote")),
            votes=[(i, name, "ann", 1 if i < 2 else -1) for i, name in enumerate(names)],
        )
    )
    assert texts(result.pairs) == [
        ("up1", "down1"),
        ("up1", "down2"),
        ("up2", "down1"),
        ("up2", "down2"),
    ]


def test_thumbs_of_two_people_make_a_pair_that_names_both() -> None:
    result = build_prompt_examples(
        said(reply("a", "A."), reply("b", "B."), votes=[(1, "a", "ann", 1), (2, "b", "bob", -1)])
    )
    assert result.pairs[0].origin.user_ids == ("ann", "bob")


def test_a_chain_of_thought_pair_keeps_the_thought_on_both_sides() -> None:
    result = build_prompt_examples(
        said(
            reply("a", "4", thought="2 and 2."),
            reply("b", "5", thought="2 and 3."),
            votes=[(1, "a", "ann", 1), (2, "b", "ann", -1)],
        )
    )
    assert texts(result.pairs) == [("2 and 2.\nAnswer: 4", "2 and 3.\nAnswer: 5")]
    assert (result.pairs[0].chosen.text, result.pairs[0].chosen.thought) == ("4", "2 and 2.")


def test_a_rejected_answer_may_be_cut_off_and_says_so() -> None:
    cut = reply("b", "A leaf is a", status="stopped", complete=False)
    voted = said(reply("a", "Good."), cut, votes=[(1, "a", "ann", 1), (2, "b", "ann", -1)])
    corrected = said(cut, corrections=[(3, "b", "ann", "A leaf.")])
    for evidence in (voted, corrected):
        (pair,) = build_prompt_examples(evidence).pairs
        assert (pair.chosen.complete, pair.rejected.complete) == (True, False)


@pytest.mark.parametrize("vote", [1, -1])
def test_a_lone_thumb_is_no_pair_and_an_example_of_its_own(vote: int) -> None:
    evidence = said(reply("a", "A."), reply("b", "B."), votes=[(1, "a", "ann", vote)])
    result = build_prompt_examples(evidence)
    (unpaired,) = result.unpaired
    assert result.pairs == []
    assert (unpaired.completion.text, unpaired.label, unpaired.source) == ("A.", vote > 0, "vote")
    assert unpaired.origin == Origin("c1", "hash", (1,), ("ann",))
    assert shown(result) == (["A."] if vote > 0 else [])


def test_one_thumb_makes_so_many_pairs_and_what_is_left_stands_alone() -> None:
    """Twelve answers are liked and one is not, which eight of them are held against."""
    liked = [reply(f"up{n}", f"Good {n}.") for n in range(12)]
    votes = [(n + 2, f"up{n}", "ann", 1) for n in range(12)]
    result = build_prompt_examples(
        said(reply("down", "Bad."), *liked, votes=[(1, "down", "ann", -1), *votes])
    )
    assert texts(result.pairs) == [(f"Good {n}.", "Bad.") for n in range(8)]
    assert lone(result) == sorted((f"Good {n}.", True) for n in range(8, 12))
    assert shown(result) == [f"Good {n}." for n in range(12)]
    assert result.set_aside == []


def test_of_many_liked_and_many_disliked_answers_each_is_in_some_pair_and_none_in_many() -> None:
    answers = [reply(f"{side}{n}", f"{side} {n}.") for n in range(20) for side in ("up", "down")]
    votes = [
        (n + 1, a.id, "ann", 1 if a.id.startswith("up") else -1) for n, a in enumerate(answers)
    ]
    result = build_prompt_examples(said(*answers, votes=votes))
    part_of = Counter(side.answer_id for pair in result.pairs for side in pair.sides)
    assert part_of.keys() == {answer.id for answer in answers}
    assert max(part_of.values()) == 8
    assert result.unpaired == []


def test_two_thumbs_of_the_same_direction_are_no_pair() -> None:
    votes = [(1, "a", "ann", 1), (2, "b", "ann", 1)]
    result = build_prompt_examples(said(reply("a", "A."), reply("b", "B."), votes=votes))
    assert (result.pairs, lone(result)) == ([], [("A.", True), ("B.", True)])


def test_a_liked_answer_that_was_cut_off_is_not_imitated() -> None:
    cut = reply("a", "A leaf is a", status="stopped", complete=False)
    result = build_prompt_examples(said(cut, votes=[(1, "a", "ann", 1)]))
    assert (shown(result), lone(result)) == ([], [("A leaf is a", True)])


def test_an_answer_on_which_people_disagree_is_contested() -> None:
    votes = [(1, "a", "ann", 1), (2, "a", "bob", -1), (3, "b", "ann", -1)]
    result = build_prompt_examples(said(reply("a", "A."), reply("b", "B."), votes=votes))
    assert (result.pairs, lone(result)) == ([], [("B.", False)])
    (aside,) = result.set_aside
    assert (aside.reason, aside.event_ids, aside.user_ids) == ("contested", (1, 2), ("ann", "bob"))


def test_a_weighed_verdict_decides_and_names_those_who_share_it() -> None:
    votes = [(1, "a", "ann", 1), (2, "a", "bob", -1), (3, "a", "cyd", -1), (4, "b", "ann", 1)]
    evidence = said(reply("a", "A."), reply("b", "B."), votes=votes)
    trust = Trust({"a": JointVerdict(False, 0.95)}, {}, None)
    result = build_prompt_examples(evidence, trust=trust)
    (pair,) = result.pairs
    assert texts([pair]) == [("B.", "A.")]
    assert pair.origin.event_ids == (2, 3, 4)
    assert [(item.reason, item.event_ids) for item in result.set_aside] == [("outvoted", (1,))]


# What cannot be used


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


# Consent


def test_who_does_not_consent_is_not_heard() -> None:
    evidence = said(
        reply("a", "A."),
        reply("b", "B."),
        votes=[(1, "a", "ann", 1), (2, "a", "bob", -1), (3, "b", "bob", -1)],
    )
    result = build_prompt_examples(evidence, Rules(refusing_users=frozenset({"bob"})))
    assert (result.pairs, lone(result)) == ([], [("A.", True)])
    assert [(item.reason, item.user_ids) for item in result.set_aside] == [
        ("no consent", ("bob",))
    ] * 2


def test_nothing_is_learnt_from_a_question_of_somebody_who_does_not_consent() -> None:
    evidence = said(
        reply("a", "A."), votes=[(1, "a", "bob", 1)], corrections=[(2, "a", "cyd", "Better.")]
    )
    result = build_prompt_examples(evidence, Rules(refusing_users=frozenset({"ann"})))
    assert list(result.every) == []
    assert reasons(result) == {"no consent": 2}


# Ids


def test_an_id_stays_when_more_people_say_the_same() -> None:
    """So that the operator's decision about an example outlives the next vote."""
    answers = reply("a", "A."), reply("b", "B."), reply("c", "C.")
    votes = [(1, "a", "ann", 1), (2, "b", "ann", -1)]
    choices: list[tuple[int, str, str, str, ChoiceValue]] = [(3, "a", "c", "ann", "left")]
    one = build_prompt_examples(said(*answers, votes=votes, choices=choices))
    more = build_prompt_examples(
        said(
            *answers,
            votes=[*votes, (4, "a", "bob", 1), (5, "b", "cyd", -1)],
            choices=[*choices, (6, "c", "a", "bob", "right")],
        )
    )
    assert [e.id for e in one.every] == [e.id for e in more.every]
    assert [e.origin for e in one.every] != [e.origin for e in more.every]


# From the store


def test_a_flipped_vote_turns_its_pair_around(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    first = talk.ask(text="First.")
    second = talk.again(first, "Second.")
    store.vote(first, "ann", 1)
    store.vote(second, "ann", -1)
    assert texts(examples_now(training_set).pairs) == [("First.", "Second.")]
    store.vote(first, "ann", -1)
    store.vote(second, "ann", 1)
    assert texts(examples_now(training_set).pairs) == [("Second.", "First.")]
    store.vote(second, "ann", 0)
    assert examples_now(training_set).pairs == []


def test_the_same_question_asked_twice_in_a_conversation_makes_siblings(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    for conversation in ("c1", "c2"):
        store.vote(talk.ask(text="Good.", conversation=conversation), "ann", 1)
    store.vote(talk.ask(text="Bad.", conversation="c1"), "ann", -1)
    examples = examples_now(training_set)
    assert texts(examples.pairs) == [("Good.", "Bad.")]
    assert [pair.origin.conversation_id for pair in examples.pairs] == ["c1"]


def test_the_same_question_after_another_history_is_another_prompt(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    store.vote(talk.ask("Why?", "Good."), "ann", 1)
    before = talk.ask("What is a leaf?", "A leaf.")
    store.vote(talk.ask("Why?", "Bad.", parent=before), "ann", -1)
    assert examples_now(training_set).pairs == []


def test_the_same_question_under_another_template_is_another_prompt(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    store.vote(talk.ask("Why?", "Good."), "ann", 1)
    store.vote(talk.ask("Why?", "Bad.", template=make_template("cot", ())), "ann", -1)
    assert examples_now(training_set).pairs == []


def test_a_pair_from_a_later_turn_has_all_the_model_was_shown(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    template = make_template("few-shot", (Example("2+2?", "4", ""),), "Be brief.")
    first = talk.ask("Q1", "A1", template=template)
    second = talk.ask("Q2", "A2", parent=first, template=template)
    store.correct(second, "ann", "Better.")
    (pair,) = examples_now(training_set).pairs
    assert [(m.role, m.content) for m in pair.prompt] == [
        ("system", "Be brief."),
        ("user", "2+2?"),
        ("assistant", "4"),
        ("user", "Q1"),
        ("assistant", "A1"),
        ("user", "Q2"),
    ]
    assert texts([pair]) == [("Better.", "A2")]


def test_a_few_shot_example_is_never_a_target(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    template = make_template("few-shot", (Example("2+2?", "4", ""),))
    liked = talk.ask("3+3?", "6", template=template)
    store.vote(liked, "ann", 1)
    examples = examples_now(training_set)
    assert [side.text for example in examples.every for side in example.sides] == ["6", "6"]


# Whatever the evidence

FEW = settings(max_examples=50)
USERS = ("ann", "bob", "cyd")
LIMIT = 12
RULES = Rules(max_answer_chars=LIMIT)
TEXTS = st.sampled_from(["yes", "Yes", "no", "NO.", "maybe", " ", "", "far too long for it"])
STATUSES: st.SearchStrategy[AnswerStatus] = st.sampled_from(
    ["done", "done", "done", "stopped", "failed", "aborted", "streaming"]
)


@st.composite
def evidences(draw: st.DrawFn) -> PromptEvidence:
    """One prompt with up to four answers, of which three people say anything."""
    names = ["a", "b", "c", "d"][: draw(st.integers(1, 4))]
    answers = [
        reply(
            name,
            draw(TEXTS),
            status=draw(STATUSES),
            complete=draw(st.booleans()),
            thought=draw(st.sampled_from(["", "", "so"])),
        )
        for name in names
    ]
    someone, something = st.sampled_from(USERS), st.sampled_from(names)
    about = st.tuples(something, someone)
    votes = draw(st.dictionaries(about, st.sampled_from([1, -1]), max_size=8))
    corrections = draw(st.dictionaries(about, TEXTS.filter(str.strip), max_size=3))
    two = st.lists(something, min_size=2, max_size=2, unique=True)
    choices = draw(
        st.lists(st.tuples(two, someone, st.sampled_from(ALL_CHOICES)), max_size=5)
        if len(names) > 1
        else st.just([])
    )
    events = draw(st.permutations(range(1, 1 + len(votes) + len(corrections) + len(choices))))
    number = iter(events)
    return said(
        *answers,
        votes=sorted((next(number), a, u, vote) for (a, u), vote in votes.items()),
        corrections=sorted((next(number), a, u, text) for (a, u), text in corrections.items()),
        choices=sorted(
            (next(number), left, right, u, choice) for (left, right), u, choice in choices
        ),
        flagged=draw(st.sets(something, max_size=1)),
    )


def event_users(evidence: PromptEvidence) -> dict[int, str]:
    """Each current statement and whose it is."""
    statements: list[CurrentVote | CurrentCorrection | CurrentChoice] = [
        *evidence.votes,
        *evidence.corrections,
        *evidence.choices,
    ]
    return {statement.event_id: statement.user_id for statement in statements}


@FEW
@given(evidences(), st.sets(st.sampled_from(USERS), max_size=1))
def test_nothing_that_anybody_says_is_lost(evidence: PromptEvidence, refusing: set[str]) -> None:
    """Each current statement is in an example or is set aside with a reason, and none is made up.

    A statement of somebody who refuses is in no example.
    """
    result = build_prompt_examples(evidence, replace(RULES, refusing_users=frozenset(refusing)))
    used = {event for example in result.every for event in example.origin.event_ids}
    aside = {event for item in result.set_aside for event in item.event_ids}
    users = event_users(evidence)
    assert used | aside == users.keys()
    assert not {users[event] for event in used} & refusing
    origins = [example.origin for example in result.every]
    accounts: list[Origin | SetAside] = [*origins, *result.set_aside]
    for each in accounts:
        assert set(each.user_ids) == {users[event] for event in each.event_ids}


@FEW
@given(evidences())
def test_what_is_trained_on_can_be_learnt_from(evidence: PromptEvidence) -> None:
    result = build_prompt_examples(evidence, RULES)
    answers = {answer.id: answer for answer in evidence.answers}
    for example in result.every:
        for side in example.sides:
            assert side.text.strip() and len(side.text) + len(side.thought) <= LIMIT
            if side.base != PERSON:
                assert answers[side.answer_id].status in USABLE
                assert side.answer_id not in evidence.flagged
    for pair in result.pairs:
        assert normalized(pair.chosen.full_text) != normalized(pair.rejected.full_text)
        assert pair.chosen.complete
    assert all(each.completion.complete for each in result.demonstrations)


@FEW
@given(evidences())
def test_no_answer_is_called_both_good_and_bad(evidence: PromptEvidence) -> None:
    result = build_prompt_examples(evidence, RULES)
    bad = {each.completion.answer_id for each in result.unpaired if not each.label}
    lauded: list[Demonstration | Unpaired] = [e for e in result.unpaired if e.label]
    lauded += [each for each in result.demonstrations if each.source == "vote"]
    assert not bad & {each.completion.answer_id for each in lauded}
    paired = {side.answer_id for pair in result.pairs for side in pair.sides}
    assert not paired & {each.completion.answer_id for each in result.unpaired}


@FEW
@given(evidences())
def test_each_example_has_an_id_of_its_own_that_can_be_derived_from_it(
    evidence: PromptEvidence,
) -> None:
    ids = [example.id for example in build_prompt_examples(evidence, RULES).every]
    assert len(set(ids)) == len(ids)
    assert ids == [derived_id(example) for example in build_prompt_examples(evidence, RULES).every]


@FEW
@given(evidences(), st.randoms(use_true_random=False))
def test_the_order_of_answers_and_votes_does_not_matter(
    evidence: PromptEvidence, r: Random
) -> None:
    shuffled = replace(
        evidence,
        answers=tuple(r.sample(evidence.answers, len(evidence.answers))),
        votes=tuple(r.sample(evidence.votes, len(evidence.votes))),
    )

    def outcome(given: PromptEvidence) -> Counter[object]:
        result = build_prompt_examples(given, RULES)
        return Counter((e.id, frozenset(e.origin.event_ids)) for e in result.every) + Counter(
            (item.reason, frozenset(item.event_ids)) for item in result.set_aside
        )

    assert outcome(shuffled) == outcome(evidence)


def test_the_same_evidence_gives_the_same_examples_in_every_process() -> None:
    """In the same order too: no set's order, which Python changes from run to run, shows."""
    program = (
        "from tests.feedback_store.helpers import reply, said\n"
        "from feedback_store.examples.pairing import build_prompt_examples\n"
        "names = [f'answer-{i}' for i in range(8)]\n"
        "print(build_prompt_examples(said(\n"
        "    *(reply(name, name) for name in names),\n"
        "    votes=[(i + j, name, user, 1 - 2 * j) for i, name in enumerate(names[:4])\n"
        "           for j, user in enumerate(('ann', 'bob'))],\n"
        "    choices=[(20 + i, names[i], names[i + 1], 'ann', 'both_bad') for i in (4, 6)],\n"
        ")))\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_messages_of_the_prompt_are_kept_as_they_were_shown() -> None:
    prompt = (Message("system", "{{x}}"), Message("user", "<|im_end|>"))
    result = build_prompt_examples(
        said(reply("a", "A."), votes=[(1, "a", "ann", 1)], prompt=prompt)
    )
    assert [example.prompt for example in result.every] == [prompt, prompt]
