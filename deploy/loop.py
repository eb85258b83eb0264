"""The periodic loop: evidence -> snapshot -> bundle -> verdict -> live.

`run` is the loop of the design, one call after the other; `status` says what it would do and why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from deploy.gate.verdict import GateReport, judge_candidate
from deploy.releases.events import LOOP
from deploy.releases.learning import kinds_trained_on
from deploy.releases.promotion import Releases
from deploy.releases.registration import registration_of
from deploy.releases.registry import Registry
from deploy.rounds.change_point import RatingWatch, watch_ratings
from deploy.rounds.changed_wishes import contradicts, measure_agreement
from deploy.rounds.trigger import ALL_KINDS, EVIDENCE_WEIGHTS, LoopStatus, Sources, weigh_evidence
from engine.adapters.slots import AdapterSlots
from engine.errors import InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.request import Engine
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.examples.types import TrainingExample
from feedback_store.records import Rating
from feedback_store.snapshots.snapshot import newer_part, open_snapshot
from feedback_store.view.training_set import TrainingSet
from tuning.best_of import Scorer
from tuning.evaluation.evaluate import evaluate
from tuning.evaluation.report import write_report
from tuning.jobs.events import Report
from tuning.jobs.runner import JobRunner
from tuning.judge import Judge
from tuning.recipe import Recipe
from tuning.rows import ExampleKind
from tuning.trainability import require_trainable

Stated = TypeVar("Stated", bound=TrainingExample)


@dataclass(frozen=True, slots=True)
class LoopResult:
    """The result of a round."""

    ran: bool
    reason: str
    snapshot: str | None = None
    bundle: str | None = None
    report: GateReport | None = None
    promoted: bool = False
    since_event: int = 0  # the statements up to here were left out, since wishes have changed

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JudgedBundle:
    """A verdict and the folder of the evaluation behind it."""

    gate: GateReport
    folder: Path


class Loop:
    """The loop over one home and one engine."""

    def __init__(
        self,
        *,
        home: Home,
        base: BaseModel,
        training_set: TrainingSet,
        take_snapshot: Callable[[], str],
        registry: Registry,
        jobs: JobRunner,
        min_new_pairs: int,
        weights: Mapping[str, float] = EVIDENCE_WEIGHTS,
        read_ratings: Callable[[str | None], Sequence[Rating]] | None = None,
    ) -> None:
        """`read_ratings` returns the thumbs of a release; without it nobody watches them."""
        self._home = home
        self._base = base
        self._training_set = training_set
        self._take_snapshot = take_snapshot
        self._registry = registry
        self._jobs = jobs
        self._min_new_pairs = min_new_pairs
        self._weights = weights
        self._read_ratings = read_ratings
        self._watched: tuple[object, RatingWatch | None] = (None, None)
        self._releases = Releases(registry, home.bundles, base)

    def run(
        self,
        engine: Engine,
        slots: AdapterSlots,
        recipe: Recipe,
        origins: dict[str, str],
        report: Report,
        *,
        force: bool = False,
    ) -> LoopResult:
        """One round. `force` trains even without enough new evidence; the gate still decides."""
        status = self.status(kinds_trained_on(asdict(recipe)))
        if not status.would_run and not force:
            return LoopResult(ran=False, reason=status.reason)
        snapshot, bundle, gate = self.train_and_judge(engine, slots, recipe, origins, report)
        promoted = gate.verdict == "better" and bundle != self._registry.live().bundle
        if promoted:
            self._releases.promote(bundle, reason=gate.reason, actor=LOOP)
        since = self._manifest(snapshot).get("since_event", 0)
        return LoopResult(True, gate.reason, snapshot, bundle, gate, promoted, since)

    def train_and_judge(
        self,
        engine: Engine,
        slots: AdapterSlots,
        recipe: Recipe,
        origins: dict[str, str],
        report: Report,
    ) -> tuple[str, str, GateReport]:
        """Snapshot, tune, gate; nothing is promoted. Returns (snapshot, bundle, gate's report)."""
        require_trainable(self._base.folder, recipe)
        snapshot = self._without_outdated(engine, slots, self._take_snapshot())
        job = self._jobs.start(
            base_name=self._base.name,
            base_digest=self._base.digest,
            snapshot=snapshot,
            recipe=recipe,
            recipe_origins=origins,
        )
        for event in self._jobs.wait(job):
            report(event)
        bundle = self._jobs.result(job)
        return snapshot, bundle, self.evaluate(engine, slots, bundle, snapshot).gate

    def _without_outdated(self, engine: Engine, slots: AdapterSlots, snapshot: str) -> str:
        """The snapshot without what was said before people changed their minds, if they did.

        They did where the live release contradicts the statements that came after its training.
        What its own snapshot left out stays out.
        """
        live = self._registry.live().bundle
        trained_on = self._snapshot_of(live)
        if live is None or trained_on is None:
            return snapshot
        data = open_snapshot(self._home.snapshots, snapshot)
        since, until = trained_on.get("since_event", 0), trained_on.get("last_event", 0)
        with slots.hold(live):
            agreement = measure_agreement(
                engine,
                live,
                _after(until, [*data.train.pairs, *data.heldout.pairs]),
                _after(until, [*data.train.unpaired, *data.heldout.unpaired]),
            )
        if contradicts(agreement):
            since = until
        newer = newer_part(self._home.snapshots, data, since) if since else None
        return newer or snapshot

    def status(self, taught: Collection[ExampleKind] = ALL_KINDS) -> LoopStatus:
        """Whether `run` would train now, and why; `taught`: the kinds that its recipe trains on."""
        summary = self._training_set.refresh()
        trained = [self._manifest(snapshot) for snapshot in self._trained_snapshots()]
        return weigh_evidence(
            {f"{k}/{source}": n for k in ALL_KINDS for source, n in summary.counts[k].items()},
            [_sources(manifest) for manifest in trained],
            min_new_pairs=self._min_new_pairs,
            job_running=any(job.state == "running" for job in self._jobs.list()),
            weights=self._weights,
            taught=taught,
            ratings=self._watch(
                summary.last_event, max((m.get("last_event", 0) for m in trained), default=0)
            ),
        )

    def _watch(self, last_event: int, acted_on: int) -> RatingWatch | None:
        """Test the ratings of the live release, once for each new event."""
        if self._read_ratings is None:
            return None
        live = self._registry.live().bundle
        if self._watched[0] != (last_event, acted_on, live):
            found = watch_ratings(self._read_ratings(live), acted_on=acted_on)
            self._watched = (last_event, acted_on, live), found
        return self._watched[1]

    def evaluate(
        self,
        engine: Engine,
        slots: AdapterSlots,
        bundle: str,
        snapshot: str,
        against: str | None = None,
        *,
        ai_judge: Judge | None = None,
    ) -> JudgedBundle:
        """Judge a bundle against the live release (or `against`) and record the verdict.

        The evaluation is published under `evaluations`; an `ai_judge` compares answers in it, and
        the reward model that the bundle's run made, if it made one, scores them.
        """
        incumbent = against or self._registry.live().bundle
        if incumbent == bundle:
            raise InvalidInput("a bundle cannot be judged against itself")
        data = open_snapshot(self._home.snapshots, snapshot)
        with slots.hold(bundle), slots.hold(incumbent):
            evaluation = evaluate(
                engine,
                data.heldout.pairs,
                data.gold.pairs,
                data.heldout.unpaired,
                candidate=bundle,
                incumbent=incumbent,
                judge=ai_judge,
                scorer=self._reward_model_of(bundle),
            )
        gate = judge_candidate(evaluation)
        about = {
            "candidate": bundle,
            "incumbent": incumbent,
            "base": self._base.digest,
            "snapshot": snapshot,
        }
        digest = write_report(self._home.evaluations, evaluation, about, gate.as_dict())
        evidence = {"incumbent": incumbent, "snapshot": snapshot, "evaluation": digest}
        self._registry.register(registration_of(self._home, self._jobs, bundle))
        self._registry.add(bundle, {**gate.as_dict(), **evidence})
        return JudgedBundle(gate, folder_of(self._home.evaluations, digest))

    def _reward_model_of(self, bundle: str) -> Scorer | None:
        """The reward model that was trained in the bundle's run; it may have been forgotten."""
        reward = read_manifest(folder_of(self._home.bundles, bundle)).get("reward_model")
        rewards = self._home.rewards
        if reward is None or reward not in list_digests(rewards):
            return None
        from tuning.methods.reward_model import RewardModel  # trl takes seconds to import

        return RewardModel.open(rewards, reward, self._base)

    def _trained_snapshots(self) -> set[str]:
        """The snapshots that some bundle was trained on, of those that exist."""
        bundles = self._home.bundles
        trained = {
            str(read_manifest(folder_of(bundles, digest))["snapshot"])
            for digest in list_digests(bundles)
        }
        return trained & set(list_digests(self._home.snapshots))

    def _snapshot_of(self, bundle: str | None) -> Mapping[str, Any] | None:
        """The manifest of the snapshot that a bundle was trained on, if it is still there."""
        if bundle is None:
            return None
        snapshot = read_manifest(folder_of(self._home.bundles, bundle)).get("snapshot")
        known = snapshot in list_digests(self._home.snapshots)
        return self._manifest(str(snapshot)) if known else None

    def _manifest(self, snapshot: str) -> Mapping[str, Any]:
        return read_manifest(folder_of(self._home.snapshots, snapshot))


def _sources(manifest: Mapping[str, Any]) -> Sources:
    """The examples by source that a snapshot had, what it left out as outdated among them.

    One of "burnish-snapshot/1" has no such counts.
    """
    sources: Sources = manifest.get("seen", manifest.get("sources", {}))
    return sources


def _after(event: int, examples: Sequence[Stated]) -> list[Stated]:
    """Return the examples that rest on statements after an event alone."""
    return [each for each in examples if each.origin.is_after(event)]
