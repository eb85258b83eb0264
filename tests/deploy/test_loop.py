"""A round of the periodic loop. Tuning itself is played."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.loop import Loop
from deploy.releases.registry import LiveRelease, Registry
from deploy.rounds.store import RoundStore
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.request import Engine
from engine.storage import folder_of, publish
from feedback_store.curation.decisions import Curation
from feedback_store.snapshots.snapshot import open_snapshot
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.deploy.played_rounds import HELDOUT, TRAIN, Judge, correct, run
from tests.helpers import make_bundle
from tests.support.judges import LengthScorer, ScriptedJudge
from tests.support.played_jobs import PlayedJobs
from tuning.jobs.runner import JobRunner
from tuning.methods.reward_model import RewardModel

# What a round does


def test_below_the_threshold_a_round_does_nothing_and_says_why(
    loop: Loop, store: FeedbackStore, jobs: PlayedJobs, tmp_path: Path, registry: Registry
) -> None:
    correct(store, *TRAIN[:2])
    result = run(loop, None, None)
    assert (result.ran, result.promoted) == (False, False)
    assert "2 corrections" in result.reason
    assert "of the 3 pairs that start" in result.reason
    assert (jobs.started, registry.list()) == ([], [])
    assert not (Home(tmp_path).snapshots).exists()


def test_a_better_adapter_goes_live_and_its_pairs_are_no_longer_new(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    result = run(loop, Judge(True, False), slots)
    assert result.report is not None
    assert (result.ran, result.promoted, result.report.verdict) == (True, True, "better")
    assert registry.live() == LiveRelease(result.bundle, 1)
    recorded = registry.get(str(result.bundle)).report
    assert (recorded["snapshot"], recorded["incumbent"]) == (result.snapshot, None)
    assert recorded["conversations"] == 10
    assert loop.status().new_pairs == 0
    assert not run(loop, None, None).ran


def test_once_people_want_the_opposite_what_they_said_before_is_left_out(
    loop: Loop, store: FeedbackStore, slots: AdapterSlots, tmp_path: Path
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    before = run(loop, Judge(True, False), slots)
    assert (before.promoted, before.since_event) == (True, 0)
    correct(store, *TRAIN[5:13], *HELDOUT[10:14], better="Worse.", worse="Better.")
    after = run(loop, Judge(True, False), slots)
    snapshot = open_snapshot(Home(tmp_path).snapshots, str(after.snapshot))
    assert after.since_event == 15  # the statements before the first round
    assert [len(split.pairs) for split in (snapshot.train, snapshot.heldout)] == [8, 4]
    assert {pair.chosen.text for pair in snapshot.train.pairs} == {"Worse."}
    assert loop.status().new_pairs == 0  # what was left out is not new


def test_what_agrees_with_the_live_release_is_trained_on_with_all_that_was_said(
    loop: Loop, store: FeedbackStore, slots: AdapterSlots, tmp_path: Path
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    run(loop, Judge(True, False), slots)
    correct(store, *TRAIN[5:13], *HELDOUT[10:14])
    again = run(loop, Judge(True, False), slots)
    snapshot = open_snapshot(Home(tmp_path).snapshots, str(again.snapshot))
    assert (again.since_event, len(snapshot.train.pairs)) == (0, 13)


@pytest.mark.parametrize(
    ("judge", "heldout", "verdict"),
    [
        (Judge(False, True), 10, "not better"),
        (Judge(True, True), 10, "not better"),
        (Judge(True, False), 7, "not enough data"),
    ],
    ids=["worse", "the same", "few conversations"],
)
def test_any_other_adapter_is_kept_with_its_verdict_and_does_not_go_live(
    loop: Loop,
    store: FeedbackStore,
    registry: Registry,
    slots: AdapterSlots,
    judge: Judge,
    heldout: int,
    verdict: str,
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:heldout])
    result = run(loop, judge, slots)
    assert (result.ran, result.promoted) == (True, False)
    assert registry.live() == LiveRelease(None, 0)
    assert registry.get(str(result.bundle)).report["verdict"] == verdict


def test_an_imported_adapter_is_judged_as_ours_is_and_stays_known_as_imported(
    loop: Loop,
    store: FeedbackStore,
    registry: Registry,
    slots: AdapterSlots,
    snap: Callable[[], str],
    bundles: Path,
    tiny_base: BaseModel,
) -> None:
    imported: dict[str, Any] = {"snapshot": None, "origin": "imported", "recipe": {}}
    bundle = make_bundle(bundles, tiny_base, manifest=imported)
    correct(store, *TRAIN[:3], *HELDOUT[:10])
    assert loop.status().new_pairs == 13  # it has learnt none of them
    judged = loop.judging.evaluate(cast(Engine, Judge(True, False)), slots, bundle, snap())
    assert judged.gate.verdict == "better"
    release = registry.get(bundle)
    assert (release.report["verdict"], release.origin) == ("better", "imported")


def test_force_trains_without_new_pairs_and_the_gate_still_decides(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots
) -> None:
    correct(store, TRAIN[0], *HELDOUT[:1])
    result = run(loop, Judge(True, False), slots, force=True)
    assert (result.ran, result.promoted) == (True, False)
    assert registry.live() == LiveRelease(None, 0)


def test_a_failed_job_leaves_what_is_live_alone(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots, jobs: PlayedJobs
) -> None:
    correct(store, *TRAIN[:5])
    jobs.failure = "tuning failed: out of memory"
    with pytest.raises(BurnishError, match="out of memory"):
        run(loop, Judge(True, False), slots)
    assert (registry.live(), registry.list()) == (LiveRelease(None, 0), [])


def test_a_bundle_is_never_judged_against_itself(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    result = run(loop, Judge(True, False), slots)
    with pytest.raises(InvalidInput, match="against itself"):
        loop.judging.evaluate(Judge(True, False), slots, str(result.bundle), str(result.snapshot))


def test_the_evidence_of_a_verdict_can_be_read_and_names_nobody(
    loop: Loop,
    store: FeedbackStore,
    registry: Registry,
    slots: AdapterSlots,
    tmp_path: Path,
    tiny_base: BaseModel,
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    result = run(loop, Judge(True, False), slots)
    recorded = registry.get(str(result.bundle)).report
    folder = folder_of(Home(tmp_path).evaluations, recorded["evaluation"])
    document = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert (document["candidate"], document["incumbent"], document["base"]) == (
        result.bundle,
        None,
        tiny_base.digest,
    )
    assert document["verdict"]["reason"] == result.reason
    assert len(document["evidence"]["pairs"]) == 10
    assert (folder / "evaluation.html").stat().st_size > 0
    written = json.dumps([document, recorded])
    assert not any(name in written for name in (*HELDOUT[:10], "ann", "Better.", "Q of"))


def test_gold_conversations_are_judged_with_the_held_out_ones(
    loop: Loop, store: FeedbackStore, curation: Curation, slots: AdapterSlots
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    for name in HELDOUT[:3]:
        curation.mark_gold(name)
    report = run(loop, Judge(True, False), slots).report
    assert report is not None
    assert (report.pairs, report.gold_pairs, report.verdict) == (10, 3, "better")


@pytest.mark.integration
def test_an_ai_judge_may_be_asked_about_the_answers(
    loop: Loop, store: FeedbackStore, slots: AdapterSlots, bundles: Path, tiny_base: BaseModel
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    result = run(loop, Judge(True, False), slots)
    other = make_bundle(bundles, tiny_base, seed=7, manifest={"snapshot": result.snapshot})
    judged = loop.judging.evaluate(
        Judge(True, False),
        slots,
        other,
        str(result.snapshot),
        ai_judge=ScriptedJudge(lambda a, b: None),
    )
    assert judged.gate.ai_win_rate is not None
    assert judged.gate.ai_win_rate.estimate == 0.5


@pytest.mark.integration
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "forgotten"])
def test_the_reward_model_of_a_bundles_run_scores_its_answers(
    loop: Loop,
    store: FeedbackStore,
    slots: AdapterSlots,
    bundles: Path,
    tiny_base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
    kept: bool,
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    result = run(loop, Judge(True, False), slots)
    reward = publish(Home(bundles.parent).rewards, lambda folder: {"format": "burnish-reward/1"})
    monkeypatch.setattr(RewardModel, "open", lambda *_: LengthScorer())
    manifest = {
        "snapshot": result.snapshot,
        "reward_model": reward if kept else "sha256:" + "0" * 64,
    }
    bundle = make_bundle(bundles, tiny_base, seed=7, manifest=manifest)
    judged = loop.judging.evaluate(Judge(True, False), slots, bundle, str(result.snapshot))
    figures = json.loads((judged.folder / "evaluation.json").read_text("utf-8"))["summary"]
    best = figures["models"]["candidate"]["reward_best_of_4"]
    assert (best is not None and best > 0) if kept else best is None


def test_a_home_without_jobs_has_none_running(
    tmp_path: Path,
    tiny_base: BaseModel,
    training_set: TrainingSet,
    snap: Callable[[], str],
    registry: Registry,
    database: Database,
) -> None:
    real = Loop(
        home=Home(tmp_path),
        base=tiny_base,
        training_set=training_set,
        take_snapshot=snap,
        registry=registry,
        jobs=JobRunner(Home(tmp_path), tmp_path),
        rounds=RoundStore(database),
        min_new_pairs=1,
    )
    status = real.status().as_dict()
    assert (status["worth"], status["ratings"]) == (0, None)
    assert {name: status[name] for name in ("pairs", "new_pairs", "min_new_pairs")} == {
        "pairs": 0,
        "new_pairs": 0,
        "min_new_pairs": 1,
    }
    assert (status["job_running"], status["would_run"]) == (False, False)
    assert "worth 0 of the 1 pairs that start a round" in status["reason"]
