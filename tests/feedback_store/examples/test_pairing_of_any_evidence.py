"""Properties of pairing that hold for any evidence."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.messages import Message
from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.rules import USABLE, Rules
from feedback_store.examples.text_comparison import normalized
from feedback_store.examples.types import (
    PERSON,
    Demonstration,
    Origin,
    SetAside,
    Unpaired,
    derived_id,
)
from feedback_store.records import (
    AnswerStatus,
    ChoiceValue,
    CurrentChoice,
    CurrentCorrection,
    CurrentVote,
    PromptEvidence,
)
from tests.feedback_store.helpers import reply, said

ALL_CHOICES: tuple[ChoiceValue, ...] = ("left", "right", "tie", "both_bad")


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
