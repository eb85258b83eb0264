"""Judge a bundle against what is live, and record the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.gate.thresholds import Thresholds
from deploy.gate.verdict import GateReport, judge_candidate
from deploy.releases.registration import registration_of
from deploy.releases.registry import Registry
from engine.adapters.slots import AdapterSlots
from engine.errors import InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.request import Engine
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.snapshots.snapshot import open_snapshot
from tuning.best_of import Scorer
from tuning.evaluation.evaluate import SayStep, evaluate, say_nothing
from tuning.evaluation.report import write_report
from tuning.jobs.runner import JobRunner
from tuning.judge import Judge


@dataclass(frozen=True, slots=True)
class JudgedBundle:
    """A verdict and the folder of the evaluation behind it."""

    gate: GateReport
    folder: Path


class Judging:
    """The evaluation of bundles in one home."""

    def __init__(
        self,
        home: Home,
        base: BaseModel,
        registry: Registry,
        jobs: JobRunner,
        thresholds: Thresholds | None = None,
    ) -> None:
        """The shipped thresholds hold where none are given."""
        self._home = home
        self._base = base
        self._registry = registry
        self._jobs = jobs
        self._thresholds = thresholds

    def evaluate(
        self,
        engine: Engine,
        slots: AdapterSlots,
        bundle: str,
        snapshot: str,
        against: str | None = None,
        *,
        ai_judge: Judge | None = None,
        say: SayStep = say_nothing,
    ) -> JudgedBundle:
        """Judge a bundle against the live release (or `against`) and record the verdict.

        The evaluation is published under `evaluations`; an `ai_judge` compares answers in it, and
        the reward model that the bundle's run made, if it made one, scores them. `say` is told
        each step.
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
                say=say,
            )
        gate = judge_candidate(evaluation, self._thresholds)
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
