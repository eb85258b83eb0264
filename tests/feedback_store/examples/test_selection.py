"""Of all prompts' examples, which are trained on: decisions, duplicates, shares per user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from feedback_store.examples.building import choose_examples
from feedback_store.examples.pairing import PromptExamples, build_prompt_examples
from feedback_store.examples.rules import DEFAULT_RULES, IDENTICAL, Rules
from feedback_store.examples.types import Examples, Side
from feedback_store.records import DecisionAction, ExampleDecision
from tests.feedback_store.helpers import PROMPT, reply, said, texts


def corrected(
    event: int,
    original: str,
    better: str,
    *,
    user: str = "ann",
    prompt: tuple[Message, ...] = PROMPT,
) -> PromptExamples:
    """A conversation of its own, in which an answer was corrected."""
    name = f"a{event}"
    return build_prompt_examples(
        said(
            reply(name, original),
            corrections=[(event, name, user, better)],
            prompt=prompt,
            conversation=f"c{event}",
        )
    )


def voted(event: int, text: str, vote: int) -> PromptExamples:
    """A conversation of its own, in which an answer got a thumb."""
    name = f"a{event}"
    return build_prompt_examples(
        said(reply(name, text), votes=[(event, name, "ann", vote)], conversation=f"c{event}")
    )


def select(
    prompts: Iterable[PromptExamples],
    decisions: Mapping[str, ExampleDecision] | None = None,
    rules: Rules = DEFAULT_RULES,
) -> Examples:
    """What is chosen among prompts' examples."""
    return choose_examples(list(prompts), decisions or {}, rules)


def decided(
    action: DecisionAction,
    example_id: str,
    *,
    chosen: str | None = None,
    rejected: str | None = None,
) -> dict[str, ExampleDecision]:
    """One decision."""
    return {example_id: ExampleDecision(example_id, action, chosen, rejected)}


def firsts(examples: Examples) -> list[int]:
    """The first event of each pair."""
    return [pair.origin.event_ids[0] for pair in examples.pairs]


# Decisions


def test_an_excluded_pair_is_set_aside_with_its_id() -> None:
    prompt = corrected(1, "A lef.", "A leaf.")
    (pair,) = prompt.pairs
    result = select([prompt], decided("exclude", pair.id))
    assert result.pairs == []
    assert len(result.demonstrations) == 1  # nothing was decided about it
    (aside,) = result.set_aside
    assert (aside.reason, aside.example_id) == ("excluded by the operator", pair.id)
    assert (aside.event_ids, aside.conversation_id) == ((1,), "c1")


def test_a_decision_that_was_taken_back_changes_nothing() -> None:
    prompt = corrected(1, "A lef.", "A leaf.")
    (pair,) = prompt.pairs
    assert select([prompt], decided("include", pair.id)) == select([prompt])


def test_an_edit_is_a_persons_complete_answer_and_leaves_the_other_side() -> None:
    prompt = corrected(1, "A lef.", "A leaf.")
    (pair,) = prompt.pairs
    (edited,) = select([prompt], decided("edit", pair.id, rejected="A loaf.")).pairs
    assert edited.rejected == Side("A loaf.", "", True, "a1", "person", None)
    assert (edited.id, edited.chosen) == (pair.id, pair.chosen)


def test_an_edited_demonstration_has_the_new_words() -> None:
    prompt = voted(1, "A leef.", 1)
    (shown,) = prompt.demonstrations
    result = select([prompt], decided("edit", shown.id, chosen="A leaf."))
    assert [each.completion.text for each in result.demonstrations] == ["A leaf."]
    assert [each.completion.text for each in result.unpaired] == ["A leef."]


def test_an_edit_that_makes_both_sides_read_the_same_sets_the_pair_aside() -> None:
    prompt = corrected(1, "A lef.", "A leaf.")
    (pair,) = prompt.pairs
    result = select([prompt], decided("edit", pair.id, chosen="a  LEF."))
    assert (result.pairs, result.set_aside_counts) == ([], {IDENTICAL: 1})


# Duplicates


def test_the_same_pair_twice_is_one_pair_and_a_duplicate() -> None:
    elsewhere = corrected(3, "A lef.", "A leaf.", prompt=(Message("user", "And a tree?"),))
    result = select(
        [
            corrected(1, "A lef.", "A leaf."),
            corrected(2, "a lef.", "A  leaf.", user="bob"),
            elsewhere,
        ]
    )
    assert firsts(result) == [1, 3]
    # The pair and the demonstration that come of the same correction
    assert [(item.reason, item.event_ids) for item in result.set_aside] == [("duplicate", (2,))] * 2


def test_the_system_prompt_makes_no_other_question() -> None:
    prompt = (Message("system", "Be brief."), *PROMPT)
    result = select(
        [corrected(1, "A lef.", "A leaf."), corrected(2, "A lef.", "A leaf.", prompt=prompt)]
    )
    assert firsts(result) == [1]


def test_opposite_preferences_are_both_kept() -> None:
    """Two people who disagree by correcting are not duplicates of each other."""
    result = select([corrected(1, "One.", "Two."), corrected(2, "Two.", "One.", user="bob")])
    assert texts(result.pairs) == [("Two.", "One."), ("One.", "Two.")]


LONG = "A leaf is the flat green part of a plant where it makes its food from light and air. "


def test_texts_that_differ_in_a_comma_are_near_duplicates() -> None:
    result = select(
        [
            corrected(1, "Dunno.", LONG),
            corrected(2, "Dunno.", LONG.replace(" where", ", where"), user="bob"),
        ]
    )
    assert firsts(result) == [1]
    assert result.set_aside_counts == {"near-duplicate": 2}  # as a pair and as a demonstration


def test_pairs_are_near_duplicates_only_where_both_sides_are() -> None:
    result = select(
        [corrected(1, "Dunno.", LONG), corrected(2, "A kind of fish.", LONG, user="bob")]
    )
    assert firsts(result) == [1, 2]
    assert result.set_aside_counts == {"duplicate": 1}  # the demonstration of one same text


def test_texts_with_another_number_in_them_are_other_answers() -> None:
    result = select(
        [
            corrected(1, "Dunno.", LONG + "There are 12."),
            corrected(2, "Dunno.", LONG + "There are 13.", user="bob"),
        ]
    )
    assert (firsts(result), result.set_aside) == ([1, 2], [])


def test_one_text_that_is_liked_here_and_disliked_there_is_no_duplicate() -> None:
    result = select([voted(1, "A leaf.", 1), voted(2, "A leaf.", -1), voted(3, "A leaf.", -1)])
    assert [each.label for each in result.unpaired] == [True, False]
    assert result.set_aside_counts == {"duplicate": 1}


# Shares


def floods(count: int) -> list[PromptExamples]:
    """One pair of Ann's, then many of Bob's, then one of Cyd's."""
    users = ["ann", *["bob"] * count, "cyd"]
    return [
        corrected(event, "Dunno.", f"It is {event}.", user=user)
        for event, user in enumerate(users, 1)
    ]


def test_no_user_speaks_for_more_than_a_share_and_the_earliest_stay() -> None:
    """Of 2 pairs of others and n of Bob's, n <= 0.5 (n + 2) holds up to n = 2."""
    result = select(floods(6), rules=Rules(user_share=0.5, user_floor=0))
    assert firsts(result) == [1, 2, 3, 8]
    assert result.set_aside_counts == {"user over their cap": 8}  # four pairs, and as shown


def test_up_to_the_floor_everybody_may_speak() -> None:
    result = select(floods(6), rules=Rules(user_share=0.5, user_floor=6))
    assert (firsts(result), result.set_aside) == ([*range(1, 9)], [])


# The whole


def test_examples_are_in_the_order_in_which_people_spoke_whatever_the_order_of_prompts() -> None:
    prompts = [
        corrected(5, "A lef.", "A leaf."),
        corrected(2, "A lef.", "A leaf.", user="bob"),
        corrected(9, "A loaf.", "A leaf!", user="cyd"),
        voted(4, "A leaf.", 1),
    ]
    expected = select(prompts)
    assert firsts(expected) == [2, 9]
    for order in permutations(prompts):
        result = select(order)
        assert (result.pairs, result.unpaired) == (expected.pairs, expected.unpaired)
        assert result.demonstrations == expected.demonstrations
        assert Counter(result.set_aside) == Counter(expected.set_aside)


@pytest.mark.parametrize("kind", ["pairs", "unpaired", "demonstrations"])
def test_examples_can_be_had_by_kind(kind: str) -> None:
    result = select([corrected(1, "A lef.", "A leaf."), voted(2, "A loaf.", -1)])
    expected: Sequence[object] = getattr(result, kind)
    assert list(result.of_kind(kind)) == list(expected) != []


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="'set_aside'; known: pairs, unpaired, demonstrations"):
        Examples().of_kind("set_aside")
