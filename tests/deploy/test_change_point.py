"""Falling ratings: a fall is found soon, noise and one angry person raise no alarm."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from deploy.rounds.change_point import (
    BASELINE_VOTES,
    VOTES_BETWEEN_FALSE_SIGNALS,
    change_point,
    watch_ratings,
    wilson_lower,
)
from feedback_store.records import Rating


def rated(ups: Iterable[bool], people: int = 10, begin: int = 1) -> list[Rating]:
    """Thumbs of several people in turn."""
    return [Rating(begin + i, f"person {i % people}", up) for i, up in enumerate(ups)]


def drawn(rate: float, count: int, seed: int) -> list[bool]:
    chance = random.Random(seed)
    return [chance.random() < rate for _ in range(count)]


GOOD = [i % 5 != 0 for i in range(BASELINE_VOTES)]  # 80% up


def test_a_fall_is_found_where_it_began() -> None:
    after = [True] * 10 + [i % 3 == 0 for i in range(60)]
    watch = watch_ratings(rated(GOOD + after))
    assert watch.fell
    assert watch.before == pytest.approx(0.8)
    assert watch.after == pytest.approx(1 / 3, abs=0.02)
    assert abs(watch.recent - 60) <= 2  # the ten thumbs up after the baseline are not part of it


def test_how_many_thumbs_a_fall_takes_follows_from_the_ratio() -> None:
    """The baseline 0.8 of 40 is taken as 0.709; odds halved, 0.549. Only thumbs down follow, each
    adds ln(0.451 / 0.291) = 0.438, so that ln 500 = 6.2 takes 15 of them."""
    low = wilson_lower(32, 40)
    assert low == pytest.approx(0.7078, abs=1e-3)
    lower = 0.5 * low / (1 - low) / (1 + 0.5 * low / (1 - low))
    needed = math.ceil(math.log(500) / math.log((1 - lower) / (1 - low)))
    assert change_point(rated([False] * needed), low) == 0
    assert change_point(rated([False] * (needed - 1)), low) is None


def test_steady_ratings_signal_no_more_often_than_stated() -> None:
    """At the very rate that is taken as the baseline: 200 charts of 100 thumbs are 20,000 thumbs,
    of which at most one in 500 may signal in the mean."""
    signals = sum(
        change_point(rated(drawn(0.7, 100, seed)), 0.7) is not None for seed in range(200)
    )
    assert 0 < signals <= 200 * 100 / VOTES_BETWEEN_FALSE_SIGNALS


def test_one_angry_person_never_signals_nor_do_two() -> None:
    ups = rated([True] * 30)
    angry = [Rating(100 + i, "angry", False) for i in range(500)]
    assert change_point([*ups, *angry], 0.7) is None
    two = [Rating(100 + i, f"angry {i % 2}", False) for i in range(500)]
    assert change_point([*ups, *two], 0.7) is None
    three = [Rating(100 + i, f"angry {i % 3}", False) for i in range(500)]
    assert change_point([*ups, *three], 0.7) == 30


def test_one_person_does_not_set_the_standard() -> None:
    """Of forty thumbs one person gives at most fourteen, so that 200 are not a baseline yet."""
    assert watch_ratings(rated([True] * 200, people=1)).before is None
    assert watch_ratings(rated([True] * 200, people=3)).before == 1


def test_too_few_thumbs_say_nothing() -> None:
    watch = watch_ratings(rated([False] * (BASELINE_VOTES - 1)))
    assert (watch.votes, watch.before, watch.fell) == (BASELINE_VOTES - 1, None, False)


def test_what_a_round_has_acted_on_signals_no_more() -> None:
    ratings = rated(GOOD + [False] * 40)
    assert watch_ratings(ratings).fell
    assert not watch_ratings(ratings, acted_on=ratings[-1].event_id).fell
    more = rated([False] * 40, begin=200)
    assert watch_ratings([*ratings, *more], acted_on=ratings[-1].event_id).fell


@pytest.mark.parametrize(("ups", "total"), [(0, 40), (40, 40)])
def test_a_baseline_at_either_end_is_a_rate_still(ups: int, total: int) -> None:
    assert 0 < wilson_lower(ups, total) < 1
    assert change_point(rated([False] * 60), wilson_lower(ups, total)) is not None or ups == 0
