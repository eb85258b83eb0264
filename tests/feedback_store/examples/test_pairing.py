"""Thumbs, corrections and consent: which of them becomes an example."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from engine.messages import Message, Role
from engine.prompts.examples import Example
from engine.prompts.modes import make_template
from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.rules import NO_QUESTION, OUTRANKED, Rules
from feedback_store.examples.trust import JointVerdict, Trust
from feedback_store.examples.types import Demonstration, Origin, Pair, Side, pair_from_dict
from feedback_store.records import AnswerStatus, ChoiceValue
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.examples.results import lone, reasons, shown
from tests.feedback_store.helpers import PROMPT, examples_now, reply, said, texts

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
