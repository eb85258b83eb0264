"""The loop's trigger: votes of every kind by what they teach, and falling ratings."""

from __future__ import annotations

import pytest

from deploy.rounds.change_point import RatingWatch
from deploy.rounds.trigger import EVIDENCE, EVIDENCE_WEIGHTS, LoopStatus, weigh_evidence

NOW = {
    "pairs/comparison": 6,
    "pairs/votes": 4,
    "pairs/correction": 3,
    "demonstrations/correction": 3,
    "demonstrations/vote": 8,
    "unpaired/vote": 20,
    "unpaired/comparison": 2,
}
FALL = RatingWatch(90, 0.8, 0.4, 30, fell=True)


def status(min_new_pairs: int = 26, **given: object) -> LoopStatus:
    return weigh_evidence(
        NOW,
        given.pop("trained", ()),  # type: ignore[arg-type]
        min_new_pairs=min_new_pairs,
        job_running=False,
        **given,  # type: ignore[arg-type]
    )


def test_votes_of_every_kind_add_up_by_their_weight() -> None:
    """10 pairs, 3 corrections, 22 lone thumbs at a half, 8 liked answers at a quarter: 26."""
    found = status()
    assert {name: each.new for name, each in found.evidence.items()} == {
        "pairs": 10,
        "corrections": 3,
        "thumbs": 22,
        "liked": 8,
    }
    assert found.worth == 26
    assert found.would_run
    assert not status(27).would_run
    assert (found.pairs, found.new_pairs) == (13, 13)  # those of corrections included


def test_pairs_alone_reach_the_threshold_as_they_always_did() -> None:
    pairs = {"pairs/comparison": 20, "pairs/correction": 30, "demonstrations/correction": 30}
    assert weigh_evidence(pairs, (), min_new_pairs=50, job_running=False).would_run
    assert not weigh_evidence(pairs, (), min_new_pairs=51, job_running=False).would_run


def test_what_a_snapshot_trained_on_holds_is_not_new() -> None:
    found = status(trained=[{"pairs/comparison": 5, "unpaired/vote": 25}, {"pairs/votes": 1}])
    assert {name: each.new for name, each in found.evidence.items()} == {
        "pairs": 5,
        "corrections": 3,
        "thumbs": 0,  # fewer than there were, since some are in pairs now
        "liked": 8,
    }


def test_the_operators_weights_count() -> None:
    assert status(weights={**EVIDENCE_WEIGHTS, "thumbs": 0, "liked": 1}).worth == 10 + 3 + 8


def test_a_recipe_that_learns_nothing_from_a_kind_is_not_started_by_it() -> None:
    found = status(taught={"pairs"})
    assert found.worth == 13  # a correction is a pair, too
    assert "; the recipe learns nothing from lone thumbs" in found.reason
    assert "learns nothing from corrections" not in found.reason


def test_a_fall_of_the_ratings_starts_a_round_by_itself() -> None:
    found = status(1000, ratings=FALL)
    assert found.would_run
    assert "fell from 80% to 40% in its last 30 votes" in found.reason


def test_a_fall_without_anything_new_to_learn_starts_none() -> None:
    assert not status(1000, ratings=FALL, trained=[NOW]).would_run


def test_a_running_job_comes_first() -> None:
    found = weigh_evidence(NOW, (), min_new_pairs=1, job_running=True, ratings=FALL)
    assert (found.would_run, found.reason) == (False, "a tuning job is running")


def test_the_sentence_has_every_count() -> None:
    assert status().reason == (
        "new since the last training: 10 compared pairs, 3 corrections, 22 lone thumbs and"
        " 8 liked answers, worth 26 of the 26 pairs that start a round"
    )


@pytest.mark.parametrize("kind", EVIDENCE, ids=lambda kind: kind.name)
def test_nothing_outweighs_a_pair(kind: object) -> None:
    assert 0 < EVIDENCE_WEIGHTS[kind.name] <= EVIDENCE_WEIGHTS["pairs"] == 1  # type: ignore[attr-defined]
