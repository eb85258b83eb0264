"""Which evidence becomes a pair, and what is said of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.modes import make_template
from feedback_store.pairing import Pair, build_pairs
from feedback_store.records import Answer, AnswerStatus, Evidence, Turn
from feedback_store.store import FeedbackStore
from tests.feedback_store.conftest import Conversations

PROMPT = (Message("user", "What is a leaf?"),)


def reply(
    answer_id: str, text: str, *, status: AnswerStatus = "done", complete: bool = True,
    thought: str = "", adapter: str | None = None,
) -> Answer:  # fmt: skip
    return Answer(
        answer_id, "t1", status, text, thought, complete, "base", adapter, {}, 0, None, None, 0.0
    )


def said(
    *answers: Answer,
    votes: Sequence[tuple[int, str, str, int]] = (),
    corrections: Sequence[tuple[int, str, str, str]] = (),
    prompt: tuple[Message, ...] = PROMPT,
) -> Evidence:
    turn = Turn("t1", "c1", None, "ann", prompt[-1].content, "plain", "hash")
    return Evidence(turn, prompt, answers, tuple(votes), tuple(corrections))


def texts(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in pairs]


# What becomes a pair


def test_a_correction_is_preferred_to_what_it_corrects() -> None:
    result = build_pairs(
        [
            said(
                reply("a", "A lef.", adapter="sha256:old"),
                corrections=[(7, "a", "ann", "A leaf.\n")],
            )
        ]
    )
    assert result.pairs == [
        Pair(
            prompt=PROMPT, chosen="A leaf.", rejected="A lef.",
            chosen_complete=True, rejected_complete=True, source="correction",
            conversation_id="c1", turn_id="t1", template_hash="hash",
            event_ids=(7,), user_ids=("ann",), chosen_adapter=None, rejected_adapter="sha256:old",
        )
    ]  # fmt: skip


def test_an_answer_voted_up_is_preferred_to_its_sibling_voted_down() -> None:
    result = build_pairs(
        [
            said(
                reply("a", "Good.", adapter="sha256:new"),
                reply("b", "Bad."),
                votes=[(1, "b", "ann", -1), (2, "a", "ann", 1)],
            )
        ]
    )
    (pair,) = result.pairs
    assert (pair.chosen, pair.rejected, pair.source) == ("Good.", "Bad.", "votes")
    assert (pair.chosen_adapter, pair.rejected_adapter) == ("sha256:new", None)
    assert sorted(pair.event_ids) == [1, 2]
    assert pair.user_ids == ("ann",)
    assert result.unpaired == 0


def test_every_answer_voted_up_is_paired_with_every_one_voted_down() -> None:
    result = build_pairs(
        [
            said(
                *(reply(name, name) for name in ("up1", "up2", "down1", "down2", "no vote")),
                votes=[
                    (1, "up1", "ann", 1),
                    (2, "up2", "ann", 1),
                    (3, "down1", "ann", -1),
                    (4, "down2", "ann", -1),
                ],
            )
        ]
    )
    assert sorted(texts(result.pairs)) == [
        ("up1", "down1"), ("up1", "down2"), ("up2", "down1"), ("up2", "down2"),
    ]  # fmt: skip


def test_a_correction_and_a_thumb_on_a_sibling_both_count() -> None:
    """The corrected answer, voted down, is also worse than its sibling voted up."""
    result = build_pairs(
        [
            said(
                reply("a", "Wrong."),
                reply("b", "Right."),
                votes=[(1, "a", "ann", -1), (2, "b", "ann", 1)],
                corrections=[(3, "a", "ann", "Exact.")],
            )
        ]
    )
    assert sorted(texts(result.pairs)) == [("Exact.", "Wrong."), ("Right.", "Wrong.")]


def test_a_chain_of_thought_pair_keeps_the_thought_on_both_sides() -> None:
    result = build_pairs(
        [
            said(
                reply("a", "4", thought="2 and 2."),
                reply("b", "5", thought="2 and 3."),
                votes=[(1, "a", "ann", 1), (2, "b", "ann", -1)],
            ),
            said(
                reply("c", "7", thought="3 and 3."),
                corrections=[(3, "c", "ann", "6")],
            ),
        ]
    )
    assert texts(result.pairs) == [
        ("2 and 2.\nAnswer: 4", "2 and 3.\nAnswer: 5"),
        ("3 and 3.\nAnswer: 6", "3 and 3.\nAnswer: 7"),
    ]


def test_a_rejected_answer_may_be_cut_off_and_says_so() -> None:
    cut = reply("b", "A leaf is a", status="stopped", complete=False)
    result = build_pairs(
        [
            said(reply("a", "Good."), cut, votes=[(1, "a", "ann", 1), (2, "b", "ann", -1)]),
            said(cut, corrections=[(3, "b", "ann", "A leaf.")]),
        ]
    )
    assert [(p.chosen_complete, p.rejected_complete) for p in result.pairs] == [(True, False)] * 2


# What does not, and why


@pytest.mark.parametrize("vote", [1, -1])
def test_a_lone_thumb_is_no_pair_and_counts_as_unpaired(vote: int) -> None:
    result = build_pairs([said(reply("a", "A."), reply("b", "B."), votes=[(1, "a", "ann", vote)])])
    assert (result.pairs, result.unpaired) == ([], 1)


def test_two_thumbs_of_the_same_direction_are_no_pair() -> None:
    votes = [(1, "a", "ann", 1), (2, "b", "ann", 1)]
    result = build_pairs([said(reply("a", "A."), reply("b", "B."), votes=votes)])
    assert (result.pairs, result.unpaired) == ([], 2)


def test_a_cleared_vote_is_no_evidence() -> None:
    votes = [(1, "a", "ann", 1), (2, "b", "ann", 0)]
    result = build_pairs([said(reply("a", "A."), reply("b", "B."), votes=votes)])
    assert (result.pairs, result.unpaired) == ([], 1)


def test_an_answer_on_which_people_disagree_is_contested() -> None:
    votes = [(1, "a", "ann", 1), (2, "a", "bob", -1), (3, "b", "ann", -1)]
    result = build_pairs([said(reply("a", "A."), reply("b", "B."), votes=votes)])
    assert (result.pairs, result.unpaired) == ([], 1)
    assert +result.set_aside == Counter({"contested": 1})


@pytest.mark.parametrize("status", ["aborted", "failed", "streaming"])
@pytest.mark.parametrize(("vote", "sibling_vote"), [(1, -1), (-1, 1)])
def test_an_answer_that_never_ended_is_set_aside(
    status: AnswerStatus, vote: int, sibling_vote: int
) -> None:
    broken = reply("a", "Half an ans", status=status, complete=False)
    votes = [(1, "a", "ann", vote), (2, "b", "ann", sibling_vote)]
    result = build_pairs([said(broken, reply("b", "B."), votes=votes)])
    assert (result.pairs, result.unpaired) == ([], 1)
    assert +result.set_aside == Counter({"empty or aborted answer": 1})


def test_an_empty_answer_is_set_aside() -> None:
    votes = [(1, "a", "ann", -1), (2, "b", "ann", 1)]
    result = build_pairs([said(reply("a", " \n"), reply("b", "B."), votes=votes)])
    assert result.pairs == []
    assert +result.set_aside == Counter({"empty or aborted answer": 1})


def test_an_answer_that_was_cut_off_is_never_the_better_one() -> None:
    cut = reply("a", "A leaf is a", status="stopped", complete=False)
    votes = [(1, "a", "ann", 1), (2, "b", "ann", -1)]
    result = build_pairs([said(cut, reply("b", "B."), votes=votes)])
    assert result.pairs == []
    assert +result.set_aside == Counter({"chosen answer is cut off": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A leaf.", "a  LEAF.\n"),
        ("ﬁne", "fine"),  # the ligature, compatibility-equivalent
        ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
        ("1２", "12"),  # full width
    ],
)
def test_sides_that_read_the_same_are_no_preference(one: str, other: str) -> None:
    votes = [(1, "a", "ann", 1), (2, "b", "ann", -1)]
    result = build_pairs([said(reply("a", one), reply("b", other), votes=votes)])
    assert result.pairs == []
    assert +result.set_aside == Counter({"identical after normalisation": 1})


def test_the_same_pair_twice_is_one_pair_and_a_duplicate() -> None:
    one = said(reply("a", "A lef."), corrections=[(1, "a", "ann", "A leaf.")])
    same = said(reply("b", "a lef."), corrections=[(2, "b", "bob", "A  leaf.")])
    elsewhere = said(
        reply("c", "A lef."),
        corrections=[(3, "c", "ann", "A leaf.")],
        prompt=(Message("user", "And a tree?"),),
    )
    result = build_pairs([one, same, elsewhere])
    assert [pair.event_ids for pair in result.pairs] == [(1,), (3,)]
    assert +result.set_aside == Counter({"duplicate": 1})


def test_opposite_preferences_are_both_kept() -> None:
    """Two people who disagree by correcting are not duplicates of each other."""
    result = build_pairs(
        [
            said(reply("a", "One."), corrections=[(1, "a", "ann", "Two.")]),
            said(reply("b", "Two."), corrections=[(2, "b", "bob", "One.")]),
        ]
    )
    assert texts(result.pairs) == [("Two.", "One."), ("One.", "Two.")]


# From the store


def test_a_flipped_vote_turns_its_pair_around(store: FeedbackStore, talk: Conversations) -> None:
    first = talk.ask(text="First.")
    second = talk.again(first, "Second.")
    store.vote(first, "ann", 1)
    store.vote(second, "ann", -1)
    assert texts(build_pairs(store.evidence()).pairs) == [("First.", "Second.")]
    store.vote(first, "ann", -1)
    store.vote(second, "ann", 1)
    assert texts(build_pairs(store.evidence()).pairs) == [("Second.", "First.")]
    store.vote(second, "ann", 0)
    assert build_pairs(store.evidence()).pairs == []


def test_a_pair_from_a_later_turn_has_all_the_model_was_shown(
    store: FeedbackStore, talk: Conversations
) -> None:
    template = make_template("few-shot", (Example("2+2?", "4", ""),), "Be brief.")
    first = talk.ask("Q1", "A1", template=template)
    second = talk.ask("Q2", "A2", parent=first, template=template)
    store.correct(second, "ann", "Better.")
    (pair,) = build_pairs(store.evidence()).pairs
    assert [(m.role, m.content) for m in pair.prompt] == [
        ("system", "Be brief."),
        ("user", "2+2?"), ("assistant", "4"),
        ("user", "Q1"), ("assistant", "A1"),
        ("user", "Q2"),
    ]  # fmt: skip
    assert (pair.chosen, pair.rejected) == ("Better.", "A2")


# Whatever the evidence

WORDS = st.sampled_from(["yes", "Yes", "no", "NO", "maybe", " "])


@st.composite
def turns(draw: st.DrawFn) -> Evidence:
    """One turn with up to four answers, judged by one person."""
    names = ["a", "b", "c", "d"][: draw(st.integers(1, 4))]
    answers = [reply(name, draw(WORDS), complete=draw(st.booleans())) for name in names]
    votes = [(i, name, "ann", draw(st.integers(-1, 1))) for i, name in enumerate(names)]
    corrections = [
        (10 + i, name, "ann", draw(WORDS.filter(str.strip)))
        for i, name in enumerate(names)
        if draw(st.booleans())
    ]
    prompt = (Message("user", draw(st.sampled_from(["one?", "two?"]))),)
    return said(*answers, votes=votes, corrections=corrections, prompt=prompt)


def outcome(evidence: Sequence[Evidence]) -> tuple[Counter[tuple[object, ...]], int, Counter[str]]:
    """Pairs as their readers see them, the unpaired, and the reasons."""
    result = build_pairs(evidence)
    read = Counter((p.prompt, p.chosen.lower(), p.rejected.lower()) for p in result.pairs)
    return read, result.unpaired, +result.set_aside


@given(st.lists(turns(), max_size=5), st.randoms())
def test_the_order_of_turns_and_votes_does_not_matter(evidence: list[Evidence], r: object) -> None:
    shuffled = [
        said(
            *item.answers,
            votes=r.sample(item.votes, len(item.votes)),  # type: ignore[attr-defined]
            corrections=r.sample(item.corrections, len(item.corrections)),  # type: ignore[attr-defined]
            prompt=item.prompt,
        )
        for item in r.sample(evidence, len(evidence))  # type: ignore[attr-defined]
    ]
    assert outcome(shuffled) == outcome(evidence)


@given(st.lists(turns(), max_size=5))
def test_nothing_is_dropped_without_a_reason(evidence: list[Evidence]) -> None:
    """Each correction and each up-down couple is a pair or is counted under a reason."""
    candidates = empty = 0
    for item in evidence:
        verdicts = {answer_id: vote for _, answer_id, _, vote in item.votes if vote}
        blank = {a.id for a in item.answers if not a.text.strip()}
        seen = [vote for answer_id, vote in verdicts.items() if answer_id not in blank]
        candidates += len(item.corrections) + seen.count(1) * seen.count(-1)
        empty += len(verdicts.keys() & blank)
    result = build_pairs(evidence)
    assert len(result.pairs) + result.set_aside.total() == candidates + empty
