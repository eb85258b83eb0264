"""Whose word counts for how much, who speaks for too much, and what looks like a crowd on order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from functools import cache

import pytest

from engine.errors import InvalidInput
from feedback_store.examples.trust import (
    JointVerdict,
    Judgement,
    Trust,
    estimate_trust,
    joint_verdict,
)
from feedback_store.records import CurrentVote


def judged(item: str, **opinions: bool) -> list[Judgement]:
    return [Judgement(item, user, up) for user, up in opinions.items()]


@cache
def crowd(
    seed: int, flip: float, hostile: int = 0
) -> tuple[tuple[Judgement, ...], dict[str, bool], float]:
    """200 items, 20 users of whom some invert everything, 5 votes each; with the truth and the
    share of votes that are in fact wrong."""
    rng = random.Random(seed)
    truth = {f"item{n}": rng.random() < 0.6 for n in range(200)}
    judgements = []
    for item, good in truth.items():
        for user in rng.sample(range(20), 5):
            wrong = (rng.random() < flip) != (user < hostile)
            judgements.append(Judgement(item, f"user{user}", good != wrong))
    wrong_share = sum(j.up != truth[j.item] for j in judgements) / len(judgements)
    return tuple(judgements), truth, wrong_share


def trust_in(seed: int, flip: float, hostile: int = 0) -> Trust:
    return estimate_trust(crowd(seed, flip, hostile)[0])


def accuracy(trust: Trust, truth: dict[str, bool]) -> float:
    verdicts = {item: trust.verdict(item) for item in truth}
    right = [v is not None and v.up == truth[item] for item, v in verdicts.items()]
    return sum(right) / len(right)


def majority_accuracy(judgements: Sequence[Judgement], truth: dict[str, bool]) -> float:
    balance: Counter[str] = Counter()
    for judgement in judgements:
        balance[judgement.item] += 1 if judgement.up else -1
    return sum((balance[item] > 0) == good for item, good in truth.items()) / len(truth)


# Verdicts


def test_without_judgements_nothing_is_known() -> None:
    assert estimate_trust([]) == Trust({}, {}, None)


def test_an_item_that_one_user_judged_has_no_verdict() -> None:
    trust = estimate_trust(judged("a", ann=True) + judged("b", ann=False) + judged("c", bob=True))
    assert trust == Trust({}, {}, None)


def test_only_shared_items_say_how_reliable_a_user_is() -> None:
    trust = estimate_trust(judged("a", ann=True, bob=True) + judged("b", ann=True))
    assert (trust.verdict("b"), trust.reliability["ann"].judgements) == (None, 1)


@pytest.mark.parametrize("up", [True, False])
def test_users_who_agree_are_believed(up: bool) -> None:
    items = [judged(f"item{n}", ann=up, bob=up, cid=up) for n in range(60)]
    trust = estimate_trust(judgement for item in items for judgement in item)
    verdict = trust.verdict("item0")
    assert verdict is not None
    assert verdict.up == up
    assert verdict.confidence > 0.95
    assert trust.flip_rate == 0.0


def test_one_user_against_another_of_whom_nothing_else_is_known_is_no_verdict() -> None:
    trust = estimate_trust(judged("a", ann=True, bob=False))
    verdict = trust.verdict("a")
    assert verdict is not None
    assert verdict.confidence == 0.5
    assert joint_verdict([vote("ann", 1), vote("bob", -1)], trust) is None


def test_that_most_answers_are_good_does_not_decide_one_on_which_users_disagree() -> None:
    liked = [judged(f"item{n}", **{f"x{n}": True, f"y{n}": True}) for n in range(30)]
    trust = estimate_trust(
        [*judged("a", ann=True, bob=False), *(j for item in liked for j in item)]
    )
    verdict = trust.verdict("a")
    assert verdict is not None
    assert verdict.confidence < 0.75


def test_a_user_with_a_single_judgement_is_neither_a_saint_nor_a_villain() -> None:
    """The estimate is 4 of 5 known answers of each kind, and one more of unknown truth. Were it
    surely good, the sensitivity would be 5/6 (voted up) or 4/6 (down) and the specificity 4/5;
    were it surely bad, the specificity would be 4/6 (up) or 5/6 (down) and the sensitivity 4/5."""
    trust = estimate_trust(judged("a", ann=True, bob=True, cid=False))
    ann, cid = trust.reliability["ann"], trust.reliability["cid"]
    assert 4 / 5 < ann.sensitivity < 5 / 6
    assert 4 / 6 < ann.specificity < 4 / 5
    assert 4 / 6 < cid.sensitivity < 4 / 5
    assert 4 / 5 < cid.specificity < 5 / 6
    verdict = trust.verdict("a")
    assert verdict is not None
    assert verdict.up


def test_a_user_who_contradicts_everybody_is_known_to_be_inverted() -> None:
    reliability = trust_in(seed=1, flip=0.05, hostile=4).reliability
    for n in range(20):
        user = reliability[f"user{n}"]
        both = (user.sensitivity, user.specificity)
        assert max(both) < 0.35 if n < 4 else min(both) > 0.65


def test_the_two_coins_are_told_apart() -> None:
    """Lia votes everything up: a good answer always, a bad one never right."""
    items = []
    for n in range(100):
        good = n % 2 == 0
        items += judged(f"item{n}", ann=good, bob=good, lia=True)
    lia = estimate_trust(items).reliability["lia"]
    # 50 good and 50 bad ones, and the 5 and 5 of the prior.
    assert lia.sensitivity == pytest.approx((50 + 4) / 55, abs=1e-3)
    assert lia.specificity == pytest.approx(4 / 55, abs=1e-3)
    assert lia.judgements == 100


@pytest.mark.parametrize(("seed", "flip"), [(1, 0.05), (2, 0.05), (3, 0.0)])
def test_hostile_users_move_the_verdicts_less_than_they_move_a_majority(
    seed: int, flip: float
) -> None:
    judgements, truth, _ = crowd(seed, flip, hostile=4)
    weighted = accuracy(trust_in(seed, flip, hostile=4), truth)
    assert weighted >= 0.95
    assert weighted > majority_accuracy(judgements, truth)


def test_every_number_is_that_of_crowd_kit() -> None:
    """By its version 1.4.2: 20 rounds of `DawidSkene` over these votes and, for the prior, over
    ten more of each user: on an item known to be good, 4 up and 1 down; on a bad one, the reverse.
    The share of good items is taken out of its posteriors again."""
    trust = estimate_trust(
        judged("a", ann=True, bob=True, cid=True)
        + judged("b", ann=True, bob=False, dee=True)
        + judged("c", bob=False, cid=False, dee=False)
        + judged("d", ann=False, dee=True)
    )
    assert {item: verdict.up for item, verdict in trust.verdicts.items()} == {
        "a": True,
        "b": True,
        "c": False,
        "d": False,
    }
    confidence = {item: verdict.confidence for item, verdict in trust.verdicts.items()}
    assert confidence == pytest.approx(
        {"a": 0.988190951, "b": 0.811411119, "c": 0.986252536, "d": 0.524077037}
    )
    rates = {user: astuple(of_user) for user, of_user in trust.reliability.items()}
    assert rates.keys() == {"ann", "bob", "cid", "dee"}
    assert rates["ann"] == pytest.approx((0.7910048183035785, 0.7935013216496302, 3))
    assert rates["bob"] == pytest.approx((0.7277507513144491, 0.8357119607316332, 3))
    assert rates["cid"] == pytest.approx((0.8305978413059375, 0.8315763086273958, 2))
    assert rates["dee"] == pytest.approx((0.8412026241002386, 0.7560239596934396, 3))


# The flip rate


@pytest.mark.parametrize(
    ("seed", "flip", "tolerance"), [(1, 0.0, 0.0), (1, 0.1, 0.03), (2, 0.3, 0.05)]
)
def test_the_flip_rate_of_a_crowd_is_found(seed: int, flip: float, tolerance: float) -> None:
    found = trust_in(seed, flip).flip_rate
    assert found == pytest.approx(crowd(seed, flip)[2], abs=tolerance)
    assert found == pytest.approx(flip, abs=tolerance)


def test_the_flip_rate_counts_hostile_users_too() -> None:
    wrong = crowd(seed=1, flip=0.05, hostile=4)[2]
    assert wrong > 0.2
    assert trust_in(seed=1, flip=0.05, hostile=4).flip_rate == pytest.approx(wrong, abs=0.05)


def test_the_flip_rate_follows_from_how_often_two_users_differ() -> None:
    """18 of 100 pairs differ, and 2 * 0.1 * 0.9 = 0.18."""
    items = [judged(f"item{n}", ann=True, bob=n >= 18) for n in range(100)]
    assert estimate_trust(j for item in items for j in item).flip_rate == pytest.approx(0.1)


def test_users_who_always_differ_leave_nothing_to_learn_from() -> None:
    items = [judged(f"item{n}", ann=n % 2 == 0, bob=n % 2 == 1) for n in range(50)]
    assert estimate_trust(j for item in items for j in item).flip_rate == 0.5


def test_few_shared_answers_say_nothing_of_the_flip_rate() -> None:
    """49 of them; with 50, as in the test above, it is known."""
    items = [judged(f"item{n}", ann=True, bob=True) for n in range(49)]
    alone = [judged(f"alone{n}", ann=True) for n in range(100)]
    assert estimate_trust(j for item in items + alone for j in item).flip_rate is None


# What must not matter


def test_neither_the_order_of_the_judgements_nor_a_repetition_matters() -> None:
    judgements, _, _ = crowd(seed=2, flip=0.3)
    shuffled = random.Random(0).sample(judgements, len(judgements))
    assert estimate_trust([*shuffled, *judgements[:100]]) == trust_in(seed=2, flip=0.3)


def test_the_names_of_users_do_not_matter() -> None:
    judgements, truth, _ = crowd(seed=1, flip=0.05, hostile=4)
    names = {f"user{n}": f"user{(n * 7 + 3) % 20}" for n in range(20)}
    renamed = estimate_trust(Judgement(j.item, names[j.user], j.up) for j in judgements)
    trust = trust_in(seed=1, flip=0.05, hostile=4)
    assert renamed.flip_rate == trust.flip_rate
    for user, name in names.items():
        assert astuple(renamed.reliability[name]) == pytest.approx(astuple(trust.reliability[user]))
    for item in truth:
        ours, theirs = trust.verdict(item), renamed.verdict(item)
        assert ours is not None and theirs is not None
        assert theirs.up == ours.up
        assert theirs.confidence == pytest.approx(ours.confidence)


def test_a_user_cannot_say_both() -> None:
    with pytest.raises(InvalidInput, match="both up and down"):
        estimate_trust([*judged("a", ann=True, bob=True), *judged("a", ann=False)])


@pytest.mark.parametrize("seed", [1, 2])
def test_every_number_is_a_probability_whatever_people_vote(seed: int) -> None:
    rng = random.Random(seed)
    cast = {(rng.randrange(4 + 20 * seed), rng.randrange(2 + seed)) for _ in range(1 + 40 * seed)}
    trust = estimate_trust(Judgement(f"item{i}", f"user{u}", rng.random() < 0.5) for i, u in cast)
    for verdict in trust.verdicts.values():
        assert 0.5 <= verdict.confidence <= 1
    for user in trust.reliability.values():
        assert 0 < user.sensitivity < 1
        assert 0 < user.specificity < 1
    assert trust.flip_rate is None or 0 <= trust.flip_rate <= 0.5


# Contested answers


def vote(user: str, direction: int, at: float = 0.0, answer: str = "a") -> CurrentVote:
    return CurrentVote(0, answer, user, direction, at)


@pytest.mark.parametrize(
    ("directions", "confidence", "contested"),
    [
        ((1, 1, 1), 0.6, False),  # nobody disagrees
        ((1, 1, -1), 0.89, True),
        ((1, 1, -1), 0.9, False),
    ],
)
def test_an_answer_is_contested_where_users_disagree_and_the_verdict_is_unsure(
    directions: Sequence[int], confidence: float, contested: bool
) -> None:
    trust = Trust({"a": JointVerdict(True, confidence)}, {}, None)
    votes = [vote(f"user{n}", direction) for n, direction in enumerate(directions)]
    assert (joint_verdict(votes, trust) is None) == contested


def test_disagreement_on_an_answer_without_a_verdict_is_contested() -> None:
    assert joint_verdict([vote("ann", 1), vote("bob", -1)], Trust({}, {}, None)) is None


@pytest.mark.parametrize(("ups", "contested"), [(2, True), (3, False)])
def test_among_strangers_two_against_one_are_not_enough_but_three_are(
    ups: int, contested: bool
) -> None:
    """By the prior a vote counts 4 to 1, so they come to about 4/5 and 16/17."""
    votes = [*(vote(f"up{n}", 1) for n in range(ups)), vote("down", -1)]
    trust = estimate_trust(Judgement(v.answer_id, v.user_id, v.vote > 0) for v in votes)
    assert (joint_verdict(votes, trust) is None) == contested


def test_one_hostile_user_does_not_make_an_answer_contested() -> None:
    judgements, _, _ = crowd(seed=1, flip=0.0, hostile=1)
    trust = trust_in(seed=1, flip=0.0, hostile=1)
    answers: dict[str, list[CurrentVote]] = {}
    for j in judgements:
        answers.setdefault(j.item, []).append(vote(j.user, 1 if j.up else -1, answer=j.item))
    disputed = [votes for votes in answers.values() if len({v.vote for v in votes}) == 2]
    assert len(disputed) > 30
    assert all(joint_verdict(votes, trust) is not None for votes in disputed)
