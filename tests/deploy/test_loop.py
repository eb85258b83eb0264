"""The periodic loop: what it would do, and what a round does. Tuning itself is played."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.loop import Loop, LoopResult, RoundRequest
from deploy.releases.events import CanaryDecision
from deploy.releases.registry import LiveRelease, Registry
from deploy.rounds.change_point import BASELINE_VOTES
from deploy.rounds.store import RoundStore
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.prompts.modes import make_template
from engine.reference import ReferenceEngine
from engine.request import Engine, GenerationRequest, Score, ScoreRequest
from engine.serving.stream import QueuedStream
from engine.storage import folder_of, publish
from feedback_store.curation.decisions import Curation
from feedback_store.examples.split import split_of
from feedback_store.snapshots.snapshot import open_snapshot
from feedback_store.snapshots.taking import take_snapshot
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.ratings import read_ratings
from feedback_store.view.training_set import TrainingSet
from tests.helpers import make_bundle
from tests.support.judges import LengthScorer, ScriptedJudge
from tests.support.played_jobs import PlayedJobs
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.jobs.runner import Job, JobRunner
from tuning.methods.reward_model import RewardModel
from tuning.recipe import Recipe, recipe_from_dict

DPO_ALONE = recipe_from_dict({"sft": {"epochs": 0}, "dpo": {"epochs": 1}})
PLAIN = make_template("plain", ())
NAMES = [f"conversation-{number}" for number in range(100)]
TRAIN = [name for name in NAMES if split_of(name) == "train"]
HELDOUT = [name for name in NAMES if split_of(name) == "heldout"]


class Judge(ScriptedEngine):
    """How the adapter and the base like "Better." answers; both answer prompts sensibly."""

    def __init__(self, adapter_prefers_better: bool, base_prefers_better: bool) -> None:
        super().__init__({None: Voice(answers=sensible)})
        self._prefers = {True: adapter_prefers_better, False: base_prefers_better}

    def submit_many(self, requests: Sequence[GenerationRequest]) -> list[QueuedStream]:
        return super().submit_many([replace(request, adapter=None) for request in requests])

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [
            Score((-2.0,))
            if r.completion in ("Better.", "Worse.")
            and (r.completion == "Better.") != self._prefers[r.adapter is not None]
            else Score((-1.0,))
            for r in requests
        ]


@pytest.fixture
def store(database: Database) -> FeedbackStore:
    return FeedbackStore(database)


@pytest.fixture
def jobs(bundles: Path, tiny_base: BaseModel) -> PlayedJobs:
    return PlayedJobs(bundles, tiny_base)


@pytest.fixture
def curation(database: Database, store: FeedbackStore) -> Curation:
    return Curation(database)


@pytest.fixture
def training_set(database: Database, curation: Curation) -> TrainingSet:
    return TrainingSet(EvidenceReader(database), curation)


@pytest.fixture
def snap(tmp_path: Path, training_set: TrainingSet, curation: Curation) -> Callable[[], str]:
    """Takes a snapshot."""
    return partial(take_snapshot, tmp_path / "snapshots", training_set, curation)


@pytest.fixture
def loop(
    tmp_path: Path,
    tiny_base: BaseModel,
    training_set: TrainingSet,
    snap: Callable[[], str],
    registry: Registry,
    jobs: PlayedJobs,
    database: Database,
) -> Loop:
    return Loop(
        home=Home(tmp_path),
        base=tiny_base,
        training_set=training_set,
        take_snapshot=snap,
        registry=registry,
        jobs=cast(JobRunner, jobs),
        rounds=RoundStore(database),
        min_new_pairs=3,
    )


@pytest.fixture
def slots(engine: ReferenceEngine, tiny_base: BaseModel, bundles: Path) -> AdapterSlots:
    return AdapterSlots(engine, tiny_base, bundles)


def answered(
    store: FeedbackStore, name: str, user: str = "ann", base: str = "base", text: str = "Worse."
) -> str:
    """An answer in a conversation of its own."""
    turn = store.add_turn(
        user_id=user, question=f"Q of {name}", template=PLAIN, conversation_id=name
    )
    answer_id = store.begin_answer(
        turn.id, base_digest=base, adapter_digest=None, sampling={}, seed=0
    )
    store.finish_answer(answer_id, status="done", text=text, complete=True)
    return answer_id


def correct(
    store: FeedbackStore,
    *conversations: str,
    better: str = "Better.",
    worse: str = "Worse.",
    user: str = "ann",
) -> None:
    """One correction in each conversation."""
    for name in conversations:
        store.correct(answered(store, name, user, text=worse), user, better)


def run(
    loop: Loop,
    judge: Judge | None,
    slots: AdapterSlots | None,
    *,
    recipe: Recipe | None = None,
    force: bool = False,
) -> LoopResult:
    """One round; without engine and slots where nothing is to be judged."""
    engine, slots = cast(Engine, judge), cast(AdapterSlots, slots)
    request = RoundRequest(recipe or Recipe(), {}, forced=force)
    return loop.run(engine, slots, request, lambda event: None)


# What it would do


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


# What a round does


def test_below_the_threshold_a_round_does_nothing_and_says_why(
    loop: Loop, store: FeedbackStore, jobs: PlayedJobs, tmp_path: Path, registry: Registry
) -> None:
    correct(store, *TRAIN[:2])
    result = run(loop, None, None)
    assert (result.ran, result.promoted) == (False, False)
    assert "2 corrections" in result.reason
    assert "3 are asked" in result.reason
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


class Killed(BaseException):
    """The server is killed."""


def test_a_server_that_was_restarted_during_a_job_judges_its_bundle(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots, jobs: PlayedJobs
) -> None:
    """The loop need not be enabled: somebody has asked for this round."""

    def kill() -> None:
        jobs.while_running = lambda: None  # type: ignore[method-assign]
        raise Killed

    correct(store, *TRAIN[:5], *HELDOUT[:10])
    jobs.while_running = kill  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(loop, Judge(True, False), slots, force=True)
    assert registry.list() == []
    judge = cast(Engine, Judge(True, False))
    asked = lambda: RoundRequest(Recipe(), {})  # noqa: E731
    result = loop.tick(judge, slots, asked, lambda event: None, enabled=False)
    assert result is not None
    assert (result.outcome, result.round) == ("promoted", 1)
    assert registry.live().bundle == result.bundle
    assert len(jobs.started) == 1  # it ran on meanwhile
    assert loop.tick(judge, slots, asked, lambda event: None, enabled=False) is None


def test_what_is_trained_on_unchanged_data_is_no_new_release(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    first = run(loop, Judge(True, False), slots)
    made = registry.list()
    again = run(loop, Judge(True, False), slots, force=True)
    assert (again.outcome, again.promoted) == ("unchanged", False)
    assert str(first.bundle)[7:19] in again.reason
    assert registry.list() == made


def test_a_job_that_is_cancelled_ends_its_round(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots, jobs: PlayedJobs
) -> None:
    correct(store, *TRAIN[:5])
    jobs.while_running = lambda: jobs.cancel(jobs.trained[0])  # type: ignore[method-assign]
    result = run(loop, Judge(True, False), slots)
    assert (result.outcome, result.bundle) == ("cancelled", None)
    assert loop.rounds()[0].finished
    assert registry.list() == []


class PlayedCanary:
    """A canary whose decision a test makes."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.says: CanaryDecision = "running"

    def start(self, release: str) -> None:
        self.started.append(release)

    def decision(self) -> CanaryDecision:
        return self.says


@pytest.mark.parametrize("decision", ["promote", "roll back", "undecided"])
def test_a_better_candidate_waits_for_its_canary(
    loop: Loop,
    store: FeedbackStore,
    registry: Registry,
    slots: AdapterSlots,
    decision: CanaryDecision,
) -> None:
    canary = PlayedCanary()
    loop._stages = replace(loop._stages, canary=canary)
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    waits = run(loop, Judge(True, False), slots)
    assert (waits.outcome, registry.live().bundle) == ("waits", None)
    assert run(loop, Judge(True, False), slots).outcome == "waits"
    assert canary.started == [waits.bundle]
    canary.says = decision
    result = run(loop, Judge(True, False), slots)
    assert result.promoted == (decision == "promote")
    assert registry.live().bundle == (waits.bundle if result.promoted else None)
    assert result.promoted or decision in result.reason


def test_a_stage_that_failed_is_tried_again_and_five_times_end_the_round(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots, jobs: PlayedJobs
) -> None:
    correct(store, *TRAIN[:5])
    jobs.failure = "tuning failed: out of memory"
    for attempt in range(1, 6):
        with pytest.raises(BurnishError, match="out of memory"):
            run(loop, Judge(True, False), slots)
        (only,) = loop.rounds()
        assert len(only.failures) == attempt
        assert only.finished == (attempt == 5)
    assert only.told == "failed (tuning failed: out of memory)"


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
    assert "worth 0 pairs where 1 are asked" in status["reason"]
