"""Which verdicts count in a canary, whose, and how often."""

from __future__ import annotations

from collections import Counter

import pytest

from deploy.canary.counting import facts_of, verdicts_of
from deploy.canary.plan import Arm, Canary, CanaryOutcome, CanaryPlan
from deploy.canary.verdicts import BlockQueue, Verdict, within_shares
from engine.units import DAY_SECONDS
from feedback_store.view.canary_evidence import AnswerOutcome, CanaryEvidence, Said, SaidKind

PLAN = CanaryPlan("sha256:new", "sha256:old", "salt", share=0.5)


def conversation(arm: Arm, number: int = 0) -> str:
    """The name of a conversation that falls into an arm."""
    names = (f"c{i}" for i in range(10_000))
    return [name for name in (next(names) for _ in range(200)) if PLAN.arm_of(name) == arm][number]


NEW, OLD = conversation("candidate"), conversation("live")


def answer(
    id_: str, conversation_id: str, adapter: str | None, *, at: float = 1.0, status: str = "done"
) -> AnswerOutcome:
    """An answer that began at `at`, had its first token after 0.5 s and its 11th after 0.7 s."""
    return AnswerOutcome(id_, conversation_id, adapter, status, False, at, at + 0.5, at + 0.7, 11)


def test_a_share_of_conversations_is_the_candidates_and_each_canary_draws_anew() -> None:
    names = [f"conversation {i}" for i in range(4_000)]
    tenth = CanaryPlan("sha256:new", None, "salt", share=0.1)
    drawn = [name for name in names if tenth.arm_of(name) == "candidate"]
    assert len(drawn) == pytest.approx(400, abs=3 * (4_000 * 0.1 * 0.9) ** 0.5)
    assert drawn == [name for name in names if tenth.arm_of(name) == "candidate"]
    other = CanaryPlan("sha256:new", None, "pepper", share=0.1)
    both = [name for name in drawn if other.arm_of(name) == "candidate"]
    assert len(both) == pytest.approx(40, abs=20)


@pytest.mark.parametrize(("share", "others"), [(0.5, 1), (0.35, 2), (0.25, 3), (0.2, 4), (0.1, 9)])
def test_a_block_has_as_many_others_as_the_share_leaves(share: float, others: int) -> None:
    assert CanaryPlan("sha256:new", None, "salt", share=share).others == others


def test_blocks_take_verdicts_in_their_order_and_kinds_apart() -> None:
    queue = BlockQueue(others=2)
    assert queue.add(Verdict("live", True)) is None
    assert queue.add(Verdict("candidate", False)) is None
    assert queue.add(Verdict("live", True, kind="comparison")) is None
    assert queue.add(Verdict("candidate", True)) is None
    block = queue.add(Verdict("live", False))
    assert block is not None
    assert (block.won, block.good, block.others, block.weight) == (False, 1, 2, 1.0)
    assert block.chance == pytest.approx(1 / 3)
    assert block.information == pytest.approx(2 / 9)
    assert (block.reversed().won, block.reversed().good) == (True, 2)


def test_a_few_people_count_in_full() -> None:
    alone = [Verdict("live", True, "ann")] * 300
    assert list(within_shares(alone, 0.2, 50)) == alone


def test_one_of_many_waits_until_others_have_said_more() -> None:
    """Five people: over ten verdicts, one gives at most 1.5 equal parts, three tenths of all."""
    people = [Verdict("live", True, user) for user in ("ann", "bob", "cid", "dan", "eve")]
    counted = [v.user_id for v in within_shares([*people, *[people[0]] * 100], 0.2, 10)]
    assert Counter(counted)["ann"] == 10
    more = [v for v in people[1:] for _ in range(30)]
    counted = [v.user_id for v in within_shares([*people, *[people[0]] * 100, *more], 0.2, 10)]
    assert Counter(counted)["bob"] == 31
    assert Counter(counted)["ann"] == pytest.approx(0.3 * len(counted), abs=1)


def test_the_first_statement_of_each_conversation_counts_alone() -> None:
    other = conversation("candidate", 1)
    evidence = CanaryEvidence(
        (
            answer("n1", NEW, "sha256:new"),
            answer("n2", NEW, "sha256:new", at=2.0),
            answer("o1", OLD, "sha256:old"),
            answer("n3", other, "sha256:new"),
        ),
        (
            Said(1, NEW, "ann", "vote", "n1", 1),
            Said(2, NEW, "ann", "vote", "n2", -1),
            Said(3, OLD, "bob", "vote", "o1", -1),
            Said(4, other, "cid", "vote", "n3", 1),
        ),
    )
    assert list(verdicts_of(PLAN, evidence)) == [
        Verdict("candidate", True, "ann"),
        Verdict("live", False, "bob"),
        Verdict("candidate", True, "cid"),
    ]


@pytest.mark.parametrize("kind", ["correction", "regeneration"])
@pytest.mark.parametrize(("thumb", "is_good"), [(None, False), (1, True), (-1, False)])
def test_a_correction_or_regeneration_is_bad_unless_a_thumb_says_otherwise(
    kind: SaidKind, thumb: int | None, is_good: bool
) -> None:
    said = [Said(1, NEW, "ann", kind, "n1")]
    if thumb is not None:
        said.append(Said(2, NEW, "ann", "vote", "n1", thumb))
    evidence = CanaryEvidence((answer("n1", NEW, "sha256:new"),), tuple(said))
    assert list(verdicts_of(PLAN, evidence)) == [Verdict("candidate", is_good, "ann")]


def test_a_comparison_counts_for_the_conversations_own_arm() -> None:
    for own, arm in ((NEW, "candidate"), (OLD, "live")):
        first, second = ("sha256:new", "sha256:old") if own == NEW else ("sha256:old", "sha256:new")
        answers = (answer("first", own, first), answer("second", own, second, at=2.0))
        for chosen, is_good in (("first", True), ("second", False)):
            other = {"first": "second", "second": "first"}[chosen]
            said = (Said(1, own, "ann", "choice", chosen, None, other),)
            assert list(verdicts_of(PLAN, CanaryEvidence(answers, said))) == [
                Verdict(arm, is_good, "ann", "comparison")  # type: ignore[arg-type]
            ]
        tie = (Said(1, own, "ann", "choice", "first", None, "second", is_tie=True),)
        assert list(verdicts_of(PLAN, CanaryEvidence(answers, tie))) == [
            Verdict(arm, None, "ann", "comparison")  # type: ignore[arg-type]
        ]


def test_what_is_said_of_other_releases_does_not_count() -> None:
    chosen_by_person = answer("n1", NEW, "sha256:other")
    later = answer("n2", NEW, "sha256:new", at=2.0)
    evidence = CanaryEvidence(
        (chosen_by_person, later, answer("o1", OLD, "sha256:old"), answer("o2", OLD, "sha256:old")),
        (
            Said(1, NEW, "ann", "vote", "n2", 1),
            Said(2, OLD, "bob", "choice", "o1", None, "o2"),  # both are the live release's
            Said(3, "before the canary", "bob", "vote", "o9", 1),
        ),
    )
    assert list(verdicts_of(PLAN, evidence)) == []


def test_outcomes_are_those_of_the_release_that_wrote_them_in_order_of_their_ends() -> None:
    evidence = CanaryEvidence(
        (
            answer("n1", NEW, "sha256:new", at=5.0, status="failed"),
            answer("o1", OLD, "sha256:old", at=1.0),
            answer("n2", NEW, "sha256:old", at=6.0),  # the second one of a comparison
            answer("n3", NEW, "sha256:new", at=7.0, status="stopped"),  # by its person
        ),
        (),
    )
    facts = list(facts_of(PLAN, evidence))
    assert [(each.arm, each.failed) for each in facts] == [
        ("live", False),
        ("candidate", True),
        ("live", False),
    ]
    assert facts[0].seconds == pytest.approx(0.5 + 100 * 0.02)
    assert facts[1].seconds is None


@pytest.mark.parametrize(
    ("outcome", "hours_after", "kept"),
    [
        (None, 0, True),
        ("undecided", 1, True),
        ("stopped", 23, True),
        ("undecided", 25, False),
        ("rolled back", 1, False),
        ("promoted", 1, False),  # the candidate is live, and the live release answers
    ],
)
def test_who_goes_on_with_the_candidate_after_the_end(
    outcome: CanaryOutcome | None, hours_after: float, kept: bool
) -> None:
    ended_at = None if outcome is None else 1_000.0
    canary = Canary(PLAN, 100.0, ended_at, outcome)
    now = 1_000.0 + hours_after * DAY_SECONDS / 24
    assert canary.keeps(500.0, "sha256:new", NEW, now) is kept
    assert not canary.keeps(99.0, "sha256:new", NEW, now)  # it began before
    assert not canary.keeps(500.0, "sha256:old", NEW, now)  # another release began it
    assert not canary.keeps(500.0, "sha256:new", OLD, now)  # it is of the other arm
