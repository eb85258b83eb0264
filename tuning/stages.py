"""The stages of a run: each trains an adapter from the one before, and leaves its own in a folder.

The folder is made visible by a rename once it is whole, so a stage that is there is finished. A
stage that was killed goes on from its last checkpoint. Knows no snapshot and publishes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, set_seed

from engine.adapters.files import CONFIG, WEIGHTS
from engine.prompts.interface import ChatRenderer
from engine.prompts.load import load_renderer
from engine.storage import digest_file, digest_json
from tuning.jobs.events import KernelsChosen, ReferencesRead, Report
from tuning.kernels import TuningKernelChoice, choose_kernels
from tuning.methods.base import Method
from tuning.methods.joint import JointRecipe, write_contributions
from tuning.methods.joint_loss import SliceScore
from tuning.methods.reward_model import RewardModel
from tuning.methods.stage import References, Reward, Stage
from tuning.models.loading import trainer_tokenizer
from tuning.number_format import ChosenFormat
from tuning.policy import load_policy, save_adapter
from tuning.preparation import prepare
from tuning.reference_cache import Compute, PairLogProbs, PairRow, ReferenceKey, look_up_references
from tuning.search import search_rate, trial_folder
from tuning.step_reporter import StepReporter
from tuning.training_run import TrainingRun

SEARCHED = "joint"  # the method whose learning rate may be searched
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Setup:
    """The parts that all stages of a run share."""

    renderer: ChatRenderer
    tokenizer: PreTrainedTokenizerBase
    number_format: ChosenFormat
    kernels: TuningKernelChoice
    report: Report


def set_up(job: TrainingRun, report: Report) -> Setup:
    """Choose number format and kernels, and load the tokenizer; raises the errors of `prepare`."""
    number_format = prepare(job.folder, job.base.folder, job.recipe, report)
    kernels = choose_kernels(job.kernel_cache)
    report(KernelsChosen(reason=kernels.reason))
    renderer = load_renderer(job.base.folder)
    tokenizer = trainer_tokenizer(job.base.folder, renderer)
    return Setup(renderer, tokenizer, number_format, kernels, report)


@dataclass(frozen=True, slots=True)
class StageTrainer:
    """Trains the stages of one run, one after the other.

    `reward_model` is the digest of the run's reward model; `slice_rows` are rows of the joint
    method to choose its learning rate by, none where it is not searched.
    """

    job: TrainingRun
    setup: Setup
    reward_model: str | None
    slice_rows: Rows

    def train(self, name: str, method: Method, rows: Rows, start: Path | None) -> Path:
        """Train a stage from a start adapter, unless it is finished; returns its adapter's folder.

        None starts from a fresh adapter.
        """
        finished = self.job.folder / name / "adapter"
        if not finished.is_dir():
            if name == SEARCHED and self.slice_rows:
                assert isinstance(method, JointRecipe)
                self._search(name, method, rows, start)
            else:
                stage = self._stage(name, method, start)
                model = self._policy(start)
                method.train(model, Dataset.from_list(list(rows)), stage)
                _save(model, finished, stage)
        return finished

    def _search(self, name: str, method: JointRecipe, rows: Rows, start: Path | None) -> None:
        """Run the joint method with the learning rate and the length that its slice prefers."""
        from tuning.methods.joint_trainer import make_joint_trainer  # trl takes seconds to import

        folder = self.job.folder / name
        common = self._stage(name, method, start)

        def train_to(rate: float, steps: int, adapter: Path) -> SliceScore:
            stage = replace(
                common,
                folder=trial_folder(folder, rate),
                callback=StepReporter(f"{name} {rate:g}", self.setup.report),
                until_step=steps,
                slice_rows=self.slice_rows,
            )
            model = self._policy(start)
            tried = replace(method, learning_rate=rate)
            trainer = make_joint_trainer(model, Dataset.from_list(list(rows)), tried, stage)
            trainer.train_on(stage.checkpoint)
            score = trainer.score_slice()
            _save(model, adapter, stage)
            if trainer.is_world_process_zero():
                write_contributions(adapter.parent, trainer.contributions())
            return score

        search_rate(folder, self.job.recipe.search, method, len(rows), train_to, self.setup.report)

    def _stage(self, name: str, method: Method, start: Path | None) -> Stage:
        return Stage(
            name,
            self.job.folder / name,
            self.job.recipe.seed,
            self.setup.tokenizer,
            StepReporter(name, self.setup.report),
            # A fresh adapter changes nothing: the reference is the base model then, too
            _references(self.job, self.setup, None if method.reference_is_base else start),
            self.setup.kernels.kernels,
            partial(_open_reward, self.job, self.reward_model),
        )

    def _policy(self, start: Path | None) -> PeftModel:
        set_seed(self.job.recipe.seed)
        return load_policy(
            self.job.base,
            self.job.recipe.adapter,
            start,
            weights=self.job.recipe.weights,
            dtype=self.setup.number_format.dtype,
        )


def _save(model: PeftModel, folder: Path, stage: Stage) -> None:
    """Write a model's adapter into a new folder, visible once it is whole."""
    processes = PartialState()
    if processes.is_main_process:
        folder.parent.mkdir(exist_ok=True)
        temporary = folder.with_name(f"{folder.name}.tmp")
        save_adapter(model, temporary, stage.checkpoint)
        temporary.rename(folder)
    processes.wait_for_everyone()


def _references(job: TrainingRun, setup: Setup, adapter: Path | None) -> References:
    """Log-probabilities of the base model with an adapter, kept between jobs."""
    rounding = f"{setup.number_format.dtype} {setup.kernels.name}"
    key = ReferenceKey(
        base=job.base.digest,
        adapter=None if adapter is None else _adapter_digest(adapter),
        template=digest_json(setup.tokenizer.chat_template),
        number_format=f"{job.recipe.weights} {rounding}",
    )

    def references(rows: Sequence[PairRow], compute: Compute) -> Sequence[PairLogProbs]:
        found = look_up_references(job.home.references, key, rows, compute)
        setup.report(ReferencesRead(rows=len(rows), cached=found.cached))
        return found.log_probs

    return references


def _adapter_digest(folder: Path) -> str:
    """Digest of the adapter, or of the model, that a stage left."""
    adapter = [folder / WEIGHTS, folder / CONFIG]
    files = adapter if adapter[0].is_file() else sorted(folder.glob("*.safetensors"))
    return digest_json([digest_file(file) for file in files])


def _open_reward(job: TrainingRun, digest: str | None) -> Reward:
    return RewardModel.open(job.home.rewards, str(digest), job.base).score_ids
