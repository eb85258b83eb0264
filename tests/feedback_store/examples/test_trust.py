"""Whose word counts for how much, who speaks for too much, and what looks like a crowd on order."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInput
from feedback_store.examples.trust import (
    Judgement,
    Trust,
    Verdict,
    estimate,
    is_contested,
    over_cap,
    share_cap,
)
from feedback_store.records import CurrentVote

# crowd-kit 1.4 uses arguments that pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")


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


@cache
def trust_in(seed: int, flip: float, hostile: int = 0) -> Trust:
    """A fit takes half a second."""
    return estimate(crowd(seed, flip, hostile)[0])


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
    assert estimate([]) == Trust({}, {}, None)


def test_an_item_that_one_user_judged_has_no_verdict() -> None:
    trust = estimate(judged("a", ann=True) + judged("b", ann=False) + judged("c", bob=True))
    assert trust == Trust({}, {}, None)


def test_only_shared_items_say_how_reliable_a_user_is() -> None:
    trust = estimate(judged("a", ann=True, bob=True) + judged("b", ann=True))
    assert (trust.verdict("b"), trust.reliability["ann"].judgements) == (None, 1)


@pytest.mark.parametrize("up", [True, False])
def test_users_who_agree_are_believed(up: bool) -> None:
    items = [judged(f"item{n}", ann=up, bob=up, cid=up) for n in range(60)]
    trust = estimate(judgement for item in items for judgement in item)
    verdict = trust.verdict("item0")
    assert verdict is not None
    assert verdict.up == up
    assert verdict.confidence > 0.95
    assert trust.flip_rate == 0.0


def test_one_user_against_another_of_whom_nothing_else_is_known_is_no_verdict() -> None:
    trust = estimate(judged("a", ann=True, bob=False))
    verdict = trust.verdict("a")
    assert verdict is not None
    assert verdict.confidence == 0.5
    assert is_contested([vote("ann", 1), vote("bob", -1)], trust)


def test_that_most_answers_are_good_does_not_decide_one_on_which_users_disagree() -> None:
    liked = [judged(f"item{n}", **{f"x{n}": True, f"y{n}": True}) for n in range(30)]
    trust = estimate([*judged("a", ann=True, bob=False), *(j for item in liked for j in item)])
    verdict = trust.verdict("a")
    assert verdict is not None
    assert verdict.confidence < 0.75


def test_a_user_with_a_single_judgement_is_neither_a_saint_nor_a_villain() -> None:
    """The estimate is 4 of 5 known answers of each kind, and one more of unknown truth. Were it
    surely good, the sensitivity would be 5/6 (voted up) or 4/6 (down) and the specificity 4/5;
    were it surely bad, the specificity would be 4/6 (up) or 5/6 (down) and the sensitivity 4/5."""
    trust = estimate(judged("a", ann=True, bob=True, cid=False))
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
    lia = estimate(items).reliability["lia"]
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


# The flip rate


@pytest.mark.parametrize(
    ("seed", "flip", "tolerance"),
    [(1, 0.0, 0.0), (1, 0.1, 0.03), (2, 0.3, 0.05)],
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
    assert estimate(j for item in items for j in item).flip_rate == pytest.approx(0.1)


def test_users_who_always_differ_leave_nothing_to_learn_from() -> None:
    items = [judged(f"item{n}", ann=n % 2 == 0, bob=n % 2 == 1) for n in range(50)]
    assert estimate(j for item in items for j in item).flip_rate == 0.5


def test_few_shared_answers_say_nothing_of_the_flip_rate() -> None:
    """49 of them; with 50, as in the test above, it is known."""
    items = [judged(f"item{n}", ann=True, bob=True) for n in range(49)]
    alone = [judged(f"alone{n}", ann=True) for n in range(100)]
    assert estimate(j for item in items + alone for j in item).flip_rate is None


# What must not matter


def test_neither_the_order_of_the_judgements_nor_a_repetition_matters() -> None:
    judgements, _, _ = crowd(seed=2, flip=0.3)
    shuffled = random.Random(0).sample(judgements, len(judgements))
    assert estimate([*shuffled, *judgements[:100]]) == trust_in(seed=2, flip=0.3)


def test_the_names_of_users_do_not_matter() -> None:
    judgements, truth, _ = crowd(seed=1, flip=0.05, hostile=4)
    names = {f"user{n}": f"user{(n * 7 + 3) % 20}" for n in range(20)}
    renamed = estimate(Judgement(j.item, names[j.user], j.up) for j in judgements)
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
        estimate([*judged("a", ann=True, bob=True), *judged("a", ann=False)])


@pytest.mark.parametrize("seed", [1, 2])
def test_every_number_is_a_probability_whatever_people_vote(seed: int) -> None:
    rng = random.Random(seed)
    cast = {(rng.randrange(4 + 20 * seed), rng.randrange(2 + seed)) for _ in range(1 + 40 * seed)}
    trust = estimate(Judgement(f"item{i}", f"user{u}", rng.random() < 0.5) for i, u in cast)
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
        ((), 0.6, False),
    ],
)
def test_an_answer_is_contested_where_users_disagree_and_the_verdict_is_unsure(
    directions: Sequence[int], confidence: float, contested: bool
) -> None:
    trust = Trust({"a": Verdict(True, confidence)}, {}, None)
    votes = [vote(f"user{n}", direction) for n, direction in enumerate(directions)]
    assert is_contested(votes, trust) == contested


def test_disagreement_on_an_answer_without_a_verdict_is_contested() -> None:
    assert is_contested([vote("ann", 1), vote("bob", -1)], Trust({}, {}, None))


@pytest.mark.parametrize(("ups", "contested"), [(2, True), (3, False)])
def test_among_strangers_two_against_one_are_not_enough_but_three_are(
    ups: int, contested: bool
) -> None:
    """By the prior a vote counts 4 to 1, so they come to about 4/5 and 16/17."""
    votes = [*(vote(f"up{n}", 1) for n in range(ups)), vote("down", -1)]
    trust = estimate(Judgement(v.answer_id, v.user_id, v.vote > 0) for v in votes)
    assert is_contested(votes, trust) == contested


def test_one_hostile_user_does_not_make_an_answer_contested() -> None:
    judgements, _, _ = crowd(seed=1, flip=0.0, hostile=1)
    trust = trust_in(seed=1, flip=0.0, hostile=1)
    answers: dict[str, list[CurrentVote]] = {}
    for j in judgements:
        answers.setdefault(j.item, []).append(vote(j.user, 1 if j.up else -1, answer=j.item))
    disputed = [votes for votes in answers.values() if len({v.vote for v in votes}) == 2]
    assert len(disputed) > 30
    assert not any(is_contested(votes, trust) for votes in disputed)


# Shares

# An item is the tuple of its users.
MANY = st.lists(st.sets(st.sampled_from("abcdefgh"), max_size=3).map(tuple), max_size=200)
SKEWED = st.lists(
    st.sampled_from([("a",)] * 20 + [("a", "b")] * 5 + [("b",), ("c",), ("c", "d"), ("e",), ()]),
    max_size=300,
)


def cap_per_user(
    items: Sequence[Any],
    users_of: Callable[[Any], Iterable[str]],
    *,
    share: float = 0.2,
    floor: int = 50,
) -> set[int]:
    """Positions of the items beyond some user's share."""
    users = [set(users_of(item)) for item in items]
    counts = Counter(user for some in users for user in some)
    cap = share_cap(len(items), counts, share=share, floor=floor)
    return {position for position, over in enumerate(over_cap(users, cap)) if over}


def capped(
    items: Sequence[tuple[str, ...]], share: float = 0.2, floor: int = 50
) -> list[tuple[str, ...]]:
    exceeding = cap_per_user(items, lambda item: item, share=share, floor=floor)
    return [item for position, item in enumerate(items) if position not in exceeding]


@given(MANY | SKEWED, st.sampled_from([0.1, 0.2, 1 / 3, 0.5, 1.0]), st.integers(0, 60))
def test_of_what_is_kept_no_user_has_more_than_the_share(
    items: list[tuple[str, ...]], share: float, floor: int
) -> None:
    users = len({user for item in items for user in item})
    kept = capped(items, share, floor)
    for count in Counter(user for item in kept for user in item).values():
        assert count <= max(floor, max(share, 1 / users) * len(kept) + 1e-9)


@given(MANY | SKEWED, st.integers(0, 60))
def test_nothing_is_set_aside_but_what_a_user_over_the_cap_had_a_part_in(
    items: list[tuple[str, ...]], floor: int
) -> None:
    counts = Counter(user for item in items for user in item)
    for position in cap_per_user(items, lambda item: item, floor=floor):
        assert any(counts[user] > floor for user in items[position])


def test_a_user_who_votes_ten_thousand_times_is_cut_to_a_fifth() -> None:
    """100 others with 8 each are 800, which are four fifths of 1,000."""
    items = [("flood",)] * 10_000 + [(f"user{n % 100}",) for n in range(800)]
    kept = capped(items)
    assert (len(kept), kept.count(("flood",))) == (1000, 200)


def test_the_share_is_of_what_remains_and_not_of_what_there_was() -> None:
    """Two floods: with c each, 2 c + 600 remain, and c = 0.2 * (2 c + 600) for c = 200. A fifth
    of all 2,600 would have been 520 each, and together 63% of what remained."""
    items = [("x",)] * 1000 + [("y",)] * 1000 + [(f"user{n % 10}",) for n in range(600)]
    kept = Counter(capped(items))
    assert (kept["x",], kept["y",]) == (200, 200)
    assert sum(kept.values()) == 1000


def test_a_single_user_is_never_capped() -> None:
    assert cap_per_user([("ann",)] * 10_000, lambda item: item) == set()


def test_two_users_may_have_half_each() -> None:
    assert Counter(capped([("ann",)] * 300 + [("bob",)] * 200)) == {("ann",): 200, ("bob",): 200}


def test_as_many_users_as_items_are_all_kept() -> None:
    """Each has 1 / 49 of 49 items, whatever floating point says of the product."""
    items = [(f"user{n}",) for n in range(49)]
    assert cap_per_user(items, lambda item: item, share=0.01, floor=0) == set()


def test_everyone_may_have_the_floor() -> None:
    kept = Counter(capped([("ann",)] * 80 + [("bob",)] * 3))
    assert kept == {("ann",): 50, ("bob",): 3}


def test_an_item_of_two_users_counts_for_both() -> None:
    """Ann has a part in everything, so no cap under which anything remains brings her to a fifth:
    she has the floor."""
    kept = capped([("ann", f"user{n}") for n in range(100)])
    assert len(kept) == 50


def test_items_without_a_user_are_always_kept() -> None:
    items: list[tuple[str, ...]] = [()] * 10
    items += [("ann",)] * 100 + [("bob",)] * 100
    assert capped(items, floor=0)[:10] == [()] * 10
    assert cap_per_user([()] * 10, lambda item: item) == set()


def test_the_earliest_of_a_user_are_kept() -> None:
    items = [("ann",), ("bob",), ("ann",), ("ann",), ("bob",)]
    assert cap_per_user(items, lambda item: item, share=0.5, floor=0) == {3}


def test_nothing_to_cap() -> None:
    assert cap_per_user([], lambda item: ["ann"]) == set()


@pytest.mark.parametrize(("share", "floor"), [(0.0, 50), (1.1, 50), (math.nan, 50), (0.2, -1)])
def test_a_share_that_makes_no_sense_is_refused(share: float, floor: int) -> None:
    with pytest.raises(InvalidInput, match="share"):
        cap_per_user([("ann",)], lambda item: item, share=share, floor=floor)
