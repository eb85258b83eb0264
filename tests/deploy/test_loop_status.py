"""What the periodic loop would do, and the evidence that starts a round."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from deploy.loop import Loop
from deploy.rounds.change_point import BASELINE_VOTES
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import publish
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.ratings import read_ratings
from tests.deploy.played_rounds import DPO_ALONE, HELDOUT, TRAIN, answered, correct, run
from tests.helpers import make_bundle
from tests.support.played_jobs import PlayedJobs
from tuning.jobs.runner import Job


def test_pairs_are_new_until_a_bundle_was_trained_on_them(
    loop: Loop, snap: Callable[[], str], store: FeedbackStore, bundles: Path, tiny_base: BaseModel
) -> None:
    assert (loop.status().pairs, loop.status().new_pairs) == (0, 0)
    correct(store, *TRAIN[:3])
    assert (loop.status().pairs, loop.status().new_pairs) == (3, 3)
    snapshot = snap()
    assert loop.status().new_pairs == 3  # a snapshot alone has taught nobody
    make_bundle(bundles, tiny_base, manifest={"snapshot": snapshot})
    assert (loop.status().pairs, loop.status().new_pairs) == (3, 0)
    correct(store, TRAIN[3], HELDOUT[0])
    assert (loop.status().pairs, loop.status().new_pairs) == (5, 2)


def test_pairs_count_as_new_again_when_the_snapshot_of_a_bundle_is_gone(
    loop: Loop,
    snap: Callable[[], str],
    store: FeedbackStore,
    bundles: Path,
    tiny_base: BaseModel,
    tmp_path: Path,
) -> None:
    correct(store, *TRAIN[:3])
    snapshot = snap()
    make_bundle(bundles, tiny_base, manifest={"snapshot": snapshot})
    shutil.rmtree(Home(tmp_path).snapshots / snapshot.removeprefix("sha256:"))
    assert (loop.status().pairs, loop.status().new_pairs) == (3, 3)


def test_the_loop_would_run_from_the_asked_number_of_new_pairs_on(
    loop: Loop, store: FeedbackStore
) -> None:
    correct(store, *TRAIN[:2])
    assert not loop.status().would_run
    assert "2 corrections" in loop.status().reason
    correct(store, TRAIN[2])
    assert loop.status().would_run


def test_the_loop_waits_for_a_running_job(
    loop: Loop, store: FeedbackStore, jobs: PlayedJobs
) -> None:
    correct(store, *TRAIN[:3])
    jobs.running = [Job("id", "running", "snapshot", None, None, 0.0)]
    assert not loop.status().would_run
    assert loop.status().reason == "a tuning job is running"


def test_a_snapshot_of_an_older_release_counts_for_nothing(
    loop: Loop, store: FeedbackStore, bundles: Path, tiny_base: BaseModel, tmp_path: Path
) -> None:
    """Nothing can be judged by it any more, so its pairs are new to whatever is trained next."""
    old = publish(Home(tmp_path).snapshots, lambda _: {"format": "burnish-snapshot/1", "pairs": {}})
    make_bundle(bundles, tiny_base, manifest={"snapshot": old})
    correct(store, *TRAIN[:3])
    assert (loop.status().pairs, loop.status().new_pairs) == (3, 3)


def test_lone_thumbs_start_a_round(loop: Loop, store: FeedbackStore) -> None:
    """Six lone thumbs down are worth three pairs; of an answer that was liked, a quarter more."""
    for number, name in enumerate(TRAIN[:5]):
        store.vote(answered(store, name), "ann", -1)
        assert loop.status().worth == (number + 1) / 2
    assert not loop.status().would_run
    store.vote(answered(store, TRAIN[5]), "ann", 1)
    assert loop.status().worth == 3.25
    assert loop.status().would_run
    result = run(loop, None, None, recipe=DPO_ALONE)
    assert not result.ran
    assert "the recipe learns nothing from lone thumbs" in result.reason


@pytest.mark.integration
def test_falling_ratings_of_the_live_release_start_a_round_once(
    loop: Loop,
    store: FeedbackStore,
    database: Database,
    snap: Callable[[], str],
    bundles: Path,
    tiny_base: BaseModel,
) -> None:
    loop._evidence._read_ratings = partial(read_ratings, database, tiny_base.digest)
    loop._evidence._min_new_pairs = 10_000
    for number in range(BASELINE_VOTES):
        who = f"person {number % 4}"
        store.vote(answered(store, f"good {number}", who, tiny_base.digest), who, 1)
    assert not loop.status().would_run
    for number in range(16):
        who = f"person {number % 4}"
        answer_id = answered(store, f"bad {number}", who, tiny_base.digest)
        store.vote(answer_id, who, 1)
        store.vote(answer_id, who, -1)  # the latest counts
    assert loop.status().would_run
    assert "fell from 100% to 0% in its last 16 votes" in loop.status().reason
    elsewhere = read_ratings(database, tiny_base.digest, "another release")
    assert elsewhere == []
    make_bundle(bundles, tiny_base, manifest={"snapshot": snap()})
    assert not loop.status().would_run  # a round has trained on it since
