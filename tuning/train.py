"""One training run, top to bottom: snapshot and recipe in, bundle out.

Each stage leaves its adapter in a folder of its own, made visible by a rename; a run that was
killed goes on after the last finished stage, from the last checkpoint of the one it was in.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, set_seed

from engine.adapters.files import CONFIG, WEIGHTS
from engine.errors import InvalidInput
from engine.prompts.interface import ChatRenderer
from engine.prompts.load import load_renderer
from engine.storage import digest_file, digest_json
from tuning.ai_labels import drawn_ai_pairs
from tuning.dataset import read_slice, read_training_data
from tuning.jobs.events import (
    BundlePublished,
    DataRead,
    KernelsChosen,
    ReferencesRead,
    Report,
    RewardModelMade,
    SearchLeftOut,
    StageLeftOut,
)
from tuning.kernels import TuningKernelChoice, choose_kernels
from tuning.methods.base import Method
from tuning.methods.joint import JointRecipe, read_contributions, write_contributions
from tuning.methods.joint_loss import SliceScore
from tuning.methods.reward_model import RewardModel, make_reward_model
from tuning.methods.stage import References, Reward, Stage
from tuning.models.loading import trainer_tokenizer
from tuning.number_format import ChosenFormat
from tuning.policy import load_policy, save_adapter
from tuning.preparation import prepare
from tuning.publication import publish_adapter
from tuning.recipe import Recipe, fill_from_store
from tuning.reference_cache import Compute, PairLogProbs, PairRow, ReferenceKey, look_up_references
from tuning.rows import TrainingData
from tuning.search import Slice, choose_slice, read_search, search_rate, trial_folder
from tuning.start_adapter import with_start
from tuning.step_reporter import StepReporter
from tuning.trainability import require_trainable
from tuning.training_run import TrainingRun

SEARCHED = "joint"  # the method whose learning rate may be searched


@dataclass(frozen=True, slots=True)
class Setup:
    """The parts that all stages of a run share."""

    tokenizer: PreTrainedTokenizerBase
    number_format: ChosenFormat
    kernels: TuningKernelChoice
    report: Report
    reward_model: str | None = None
    slice_rows: Sequence[Mapping[str, Any]] = ()  # of the joint method, to choose a rate by


def run(job: TrainingRun, report: Report) -> str:
    """Train, publish and verify; returns the bundle's digest (in the first process, if several).

    A stage whose rows the snapshot does not have is left out, which is said in the events and in
    the manifest. Raises `InvalidInput` where no stage is left, or a value is of no use.
    """
    begun = time.monotonic()
    require_trainable(job.base.folder, job.recipe)
    job, adapter = with_start(job)
    number_format = prepare(job.folder, job.base.folder, job.recipe, report)
    kernels = choose_kernels(job.kernel_cache)
    report(KernelsChosen(reason=kernels.reason))
    renderer = load_renderer(job.base.folder)
    tokenizer = trainer_tokenizer(job.base.folder, renderer)
    ai_pairs = drawn_ai_pairs(job.home, job.recipe.rlaif, job.snapshot.digest, job.recipe.seed)
    held_back = _slice(job, report)
    data = read_training_data(
        renderer, job.snapshot, job.recipe, ai_pairs, without=held_back.conversations
    )
    job = _with_store_values(job, data)
    report(_data_read(data))
    setup = Setup(
        tokenizer,
        number_format,
        kernels,
        report,
        slice_rows=_slice_rows(job, renderer, held_back.conversations),
    )
    reward = _reward_model(job, setup, data)
    setup = replace(setup, reward_model=reward["reward_model"])
    rows = {name: method.rows(data) for name, method in job.recipe.stages.items()}
    _report_left_out(job.recipe, rows, data, report)
    for name, method in job.recipe.stages.items():
        if rows[name]:
            run_stage = _search_stage if setup.slice_rows and name == SEARCHED else _run_stage
            adapter = run_stage(job, setup, name, method, rows[name], adapter)
    assert adapter is not None, "at least one stage has rows"
    if not PartialState().is_main_process:
        return ""  # the first process publishes
    about = {
        "rows": {name: len(each) for name, each in rows.items()},  # 0: the stage was left out
        "evidence": read_contributions(job.folder / SEARCHED),
        "search": {
            "slice_conversations": len(held_back.conversations),
            "left_out": held_back.reason or None,
            "outcome": read_search(job.folder / SEARCHED),
        },
        "seconds": round(time.monotonic() - begun, 1),
        "number_format": asdict(number_format),
        "kernels": kernels.reason,
        **reward,
    }
    digest = publish_adapter(job, adapter, data, about)
    report(BundlePublished(bundle=digest))
    return digest


def _slice(job: TrainingRun, report: Report) -> Slice:
    """The conversations that are held back to choose a learning rate by."""
    if not job.recipe.search.rates:
        return Slice()
    found = choose_slice(job.snapshot, job.recipe.search, job.recipe.seed)
    if found.reason:
        report(SearchLeftOut(reason=found.reason))
    return found


def _slice_rows(
    job: TrainingRun, renderer: ChatRenderer, conversations: Collection[str]
) -> Sequence[Mapping[str, Any]]:
    if not conversations:
        return ()
    return job.recipe.joint.rows(read_slice(renderer, job.snapshot, job.recipe, conversations))


def _with_store_values(job: TrainingRun, data: TrainingData) -> TrainingRun:
    """The run with its recipe's "store" values replaced by those of the snapshot."""
    good, bad = data.good_and_bad
    flip_rate = job.snapshot.manifest["flip_rate"]
    recipe, origins = fill_from_store(
        job.recipe, job.recipe_origins, flip_rate=flip_rate, good=good, bad=bad
    )
    return replace(job, recipe=recipe, recipe_origins=origins)


def _data_read(data: TrainingData) -> DataRead:
    return DataRead(
        pairs=len(data.pairs.rows),
        answers=len(data.answers),
        lone_judgements=len(data.unpaired.rows),
        replayed=len(data.replay),
        ai_pairs=len(data.ai_pairs.rows),
        blocks=len(data.blocks),
        too_long=len(data.too_long),
        too_long_conversations=sorted(set(data.too_long)),
    )


def _reward_model(job: TrainingRun, setup: Setup, data: TrainingData) -> dict[str, Any]:
    """The digest of a reward model on people's pairs, None where not asked for; its accuracy."""
    if job.recipe.reward.epochs <= 0:
        return {"reward_model": None}
    reporter = StepReporter("reward", setup.report)
    stage = Stage("reward", job.folder / "reward", job.recipe.seed, setup.tokenizer, reporter)
    about = make_reward_model(
        job.base, job.snapshot, job.recipe, data.pairs.rows, stage, job.home.rewards
    )
    setup.report(RewardModelMade(**about))
    return about


def _report_left_out(
    recipe: Recipe, rows: Mapping[str, Sequence[Any]], data: TrainingData, report: Report
) -> None:
    """Report each stage without rows; raise `InvalidInput` where there is none with rows."""
    reasons = {
        name: f"{name} needs {method.needs}"
        for name, method in recipe.stages.items()
        if not rows[name]
    }
    if len(reasons) == len(rows):
        raise InvalidInput(
            f"nothing to train on: {'; '.join(reasons.values())}; the snapshot's training side has"
            f" none that can be used{_examples_left_out(data)}"
        )
    for name, reason in reasons.items():
        report(StageLeftOut(stage=name, reason=reason))


def _examples_left_out(data: TrainingData) -> str:
    reasons = {
        "longer than max_sequence_tokens": len(data.too_long),
        "a pair whose thoughts differ, while thoughts are not learnt": len(
            data.pairs.other_thoughts
        ),
    }
    told = [f"{count} {reason}" for reason, count in reasons.items() if count]
    return f" ({', '.join(told)})" if told else ""


def _run_stage(
    job: TrainingRun,
    setup: Setup,
    name: str,
    method: Method,
    rows: Sequence[Mapping[str, Any]],
    start: Path | None,
) -> Path:
    """Run one stage from a start adapter, unless it is finished; returns its adapter's folder."""
    folder = job.folder / name
    finished = folder / "adapter"
    if finished.is_dir():
        return finished
    stage = _stage(job, setup, name, method, start)
    model = _policy(job, setup, start)
    method.train(model, Dataset.from_list(list(rows)), stage)
    _save(model, finished, stage)
    return finished


def _search_stage(
    job: TrainingRun,
    setup: Setup,
    name: str,
    method: Method,
    rows: Sequence[Mapping[str, Any]],
    start: Path | None,
) -> Path:
    """Run the joint method with the learning rate and the length that its slice prefers."""
    from tuning.methods.joint_trainer import make_joint_trainer  # trl takes seconds to import

    assert isinstance(method, JointRecipe)
    folder = job.folder / name
    finished = folder / "adapter"
    if finished.is_dir():
        return finished
    common = _stage(job, setup, name, method, start)

    def train_to(rate: float, steps: int, adapter: Path) -> SliceScore:
        stage = replace(
            common,
            folder=trial_folder(folder, rate),
            callback=StepReporter(f"{name} {rate:g}", setup.report),
            until_step=steps,
            slice_rows=setup.slice_rows,
        )
        model = _policy(job, setup, start)
        tried = replace(method, learning_rate=rate)
        trainer = make_joint_trainer(model, Dataset.from_list(list(rows)), tried, stage)
        trainer.train_on(stage.checkpoint)
        score = trainer.score_slice()
        _save(model, adapter, stage)
        if trainer.is_world_process_zero():
            write_contributions(adapter.parent, trainer.contributions())
        return score

    search_rate(folder, job.recipe.search, method, len(rows), train_to, setup.report)
    return finished


def _stage(job: TrainingRun, setup: Setup, name: str, method: Method, start: Path | None) -> Stage:
    return Stage(
        name,
        job.folder / name,
        job.recipe.seed,
        setup.tokenizer,
        StepReporter(name, setup.report),
        # A fresh adapter changes nothing: the reference is the base model then, too
        _references(job, setup, None if method.reference_is_base else start),
        setup.kernels.kernels,
        partial(_open_reward, job, setup.reward_model),
    )


def _policy(job: TrainingRun, setup: Setup, start: Path | None) -> PeftModel:
    set_seed(job.recipe.seed)
    return load_policy(
        job.base,
        job.recipe.adapter,
        start,
        weights=job.recipe.weights,
        dtype=setup.number_format.dtype,
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
