"""One training run, top to bottom: snapshot and recipe in, bundle out.

Each stage leaves its adapter in a folder of its own, made visible by a rename; a run that was
killed goes on after the last finished stage, from the last checkpoint of the one it was in.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, set_seed

from engine.adapters.bundle import open_bundle, publish_bundle
from engine.adapters.files import CONFIG, WEIGHTS
from engine.errors import InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.prompts.load import load_template_renderer
from engine.prompts.render import Renderer
from engine.storage import canonical_json, digest_file, digest_json
from feedback_store.snapshots.snapshot import Snapshot
from tuning.dataset import TrainingData, read_training_data
from tuning.kernels import choose_kernels
from tuning.methods.common import References, Stage
from tuning.methods.dpo import train_dpo
from tuning.methods.kto import train_kto
from tuning.methods.orpo import train_orpo
from tuning.methods.sft import train_sft
from tuning.number_format import ChosenFormat
from tuning.policy import load_policy, save_adapter
from tuning.preparation import prepare
from tuning.progress import Report
from tuning.recipe import Recipe
from tuning.reference_cache import Compute, PairLogProbs, PairRow, ReferenceKey, look_up_references
from tuning.rlhf import drawn_ai_pairs, make_reward_model, prompts_for_rloo, train_on_reward
from tuning.step_reporter import StepReporter
from tuning.store_values import settle

Train = Callable[[PeftModel, Dataset, Recipe, Stage], None]
RECORDED_LIBRARIES = ("torch", "transformers", "trl", "peft")
EXPORT_ONLY = "DoRA is not computed per row of a batch: export this adapter merged into the weights"


@dataclass(frozen=True, slots=True)
class Step:
    """A stage that the recipe asks for: what it is called, how it trains and on what."""

    name: str
    train: Train
    rows: Dataset
    needs: str  # what the snapshot lacks where there are no rows


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What one run reads and where it works; `kernel_cache`: of compiled kernels, None for none."""

    base: BaseModel
    snapshot: Snapshot
    recipe: Recipe
    recipe_origins: dict[str, str]
    folder: Path  # checkpoints and finished stages
    home: Home  # reference log-probabilities are read, bundles and reward models published
    kernel_cache: Path | None = None


def run(job: TrainingRun, report: Report) -> str:
    """Train, publish and verify; returns the bundle's digest (in the first process, if several).

    A stage whose rows the snapshot does not have is left out, which is said in the events and in
    the manifest. Raises `InvalidInput` where no stage is left, or a value is of no use.
    """
    begun = time.monotonic()
    chosen = prepare(job.folder, job.base.folder, job.recipe, report)
    kernels = choose_kernels(job.kernel_cache)
    report({"event": "kernels", "reason": kernels.reason})
    renderer = load_template_renderer(job.base.folder)
    tokenizer = renderer.tokenizer
    ai_pairs = drawn_ai_pairs(job.home, job.recipe.rlaif, job.snapshot.digest, job.recipe.seed)
    data = read_training_data(renderer, job.snapshot, job.recipe, ai_pairs)
    job = _settled(job, data)
    report(_data_event(data))
    reward = _reward_model(job, data, tokenizer, report)
    steps = _steps(job, data, renderer, reward["reward_model"])
    adapter: Path | None = None
    for step in _with_rows(steps, data, report):
        stage = Stage(
            step.name,
            job.folder / step.name,
            job.recipe.seed,
            tokenizer,
            StepReporter(step.name, report),
            _references(
                job,
                f"{chosen.dtype} {kernels.name}",
                tokenizer,
                _reference(job.recipe, step, adapter),
                report,
            ),
            kernels.kernels,
        )
        adapter = _run_step(job, step, stage, chosen, adapter)
    assert adapter is not None, "at least one stage has rows"
    if not PartialState().is_main_process:
        return ""  # the first process publishes
    digest = publish_bundle(
        job.home.bundles,
        lambda folder: _copy_adapter(adapter, folder, job),
        _manifest(job, data, steps, chosen, seconds=time.monotonic() - begun)
        | {"kernels": kernels.reason}
        | reward,
    )
    if not job.recipe.adapter.weight_decomposed:  # an engine refuses DoRA, and says so
        open_bundle(job.home.bundles, digest, job.base)
    report({"event": "bundle", "bundle": digest})
    return digest


def _settled(job: TrainingRun, data: TrainingData) -> TrainingRun:
    good, bad = data.good_and_bad
    recipe, origins = settle(
        job.recipe,
        job.recipe_origins,
        flip_rate=job.snapshot.manifest["flip_rate"],
        good=good,
        bad=bad,
    )
    return replace(job, recipe=recipe, recipe_origins=origins)


def _reward_model(
    job: TrainingRun, data: TrainingData, tokenizer: PreTrainedTokenizerBase, report: Report
) -> dict[str, Any]:
    """The digest of a reward model on people's pairs, None where not asked for; its accuracy."""
    if job.recipe.reward.epochs <= 0:
        return {"reward_model": None}
    stage = Stage(
        "reward", job.folder / "reward", job.recipe.seed, tokenizer, StepReporter("reward", report)
    )
    about = make_reward_model(
        job.base, job.snapshot, job.recipe, data.pairs.rows, stage, job.home.rewards
    )
    report({"event": "reward model", **about})
    return about


def _steps(
    job: TrainingRun, data: TrainingData, renderer: Renderer, reward: str | None
) -> list[Step]:
    """The stages that the recipe asks for, in the order in which they run."""
    recipe = job.recipe
    train_rloo = partial(train_on_reward, job.base, job.home.rewards, str(reward))
    prompts = partial(prompts_for_rloo, renderer, job.snapshot, recipe)
    stages: list[tuple[str, float, Train, Callable[[], Dataset], str]] = [
        ("sft", recipe.sft.epochs, train_sft, data.for_sft, "answers to imitate"),
        ("dpo", recipe.dpo.epochs, train_dpo, data.for_dpo, "preference pairs"),
        ("kto", recipe.kto.epochs, train_kto, data.for_kto, "lone judgements"),
        ("orpo", recipe.orpo.epochs, train_orpo, data.for_dpo, "preference pairs"),
        ("rloo", recipe.rloo.epochs, train_rloo, prompts, "prompts of preference pairs"),
    ]
    return [
        Step(name, train, rows(), needs)
        for name, epochs, train, rows, needs in stages
        if epochs > 0
    ]


def _with_rows(steps: Sequence[Step], data: TrainingData, report: Report) -> list[Step]:
    lacking = [step for step in steps if not len(step.rows)]
    reasons = [f"{step.name} needs {step.needs}" for step in lacking]
    if len(lacking) == len(steps):
        raise InvalidInput(
            f"nothing to train on: {'; '.join(reasons)}; the snapshot's training side has none"
            f" that can be used{_left_out(data)}"
        )
    for step, reason in zip(lacking, reasons, strict=True):
        report({"event": "left out", "stage": step.name, "reason": reason})
    return [step for step in steps if len(step.rows)]


def _left_out(data: TrainingData) -> str:
    reasons = {
        "longer than max_sequence_tokens": len(data.too_long),
        "a pair whose thoughts differ, while thoughts are not learnt": len(
            data.pairs.other_thoughts
        ),
    }
    told = [f"{count} {reason}" for reason, count in reasons.items() if count]
    return f" ({', '.join(told)})" if told else ""


def _data_event(data: TrainingData) -> dict[str, Any]:
    """How much there is, and which conversations have something too long."""
    return {
        "event": "data",
        "pairs": len(data.pairs.rows),
        "answers": len(data.answers),
        "lone_judgements": len(data.unpaired.rows),
        "replayed": len(data.replay),
        "ai_pairs": len(data.ai_pairs.rows),
        "too_long": len(data.too_long),
        "too_long_conversations": sorted(set(data.too_long)),
    }


def _run_step(
    job: TrainingRun, step: Step, stage: Stage, chosen: ChosenFormat, previous: Path | None
) -> Path:
    """Run one stage unless it is already finished; returns its adapter's folder."""
    finished = stage.folder / "adapter"
    if finished.is_dir():
        return finished
    set_seed(job.recipe.seed)
    model = load_policy(
        job.base, job.recipe.adapter, previous, weights=job.recipe.weights, dtype=chosen.dtype
    )
    step.train(model, step.rows, job.recipe, stage)
    processes = PartialState()
    if processes.is_main_process:
        temporary = stage.folder / "adapter.tmp"
        save_adapter(model, temporary, stage.checkpoint)
        temporary.rename(finished)
    processes.wait_for_everyone()
    return finished


def _reference(recipe: Recipe, step: Step, start: Path | None) -> Path | None:
    """What a stage's loss compares with: the adapter it starts from, or None for the base model.

    A fresh adapter changes nothing: the reference is the base model then, too.
    """
    return None if step.name == "dpo" and recipe.dpo.reference == "base" else start


def _references(
    job: TrainingRun,
    rounding: str,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Path | None,
    report: Report,
) -> References:
    """Log-probabilities of the base model with an adapter, kept between jobs."""
    key = ReferenceKey(
        base=job.base.digest,
        adapter=None if adapter is None else _adapter_digest(adapter),
        template=digest_json(tokenizer.chat_template),
        number_format=f"{job.recipe.weights} {rounding}",
    )

    def references(rows: Sequence[PairRow], compute: Compute) -> Sequence[PairLogProbs]:
        found = look_up_references(job.home.references, key, rows, compute)
        report({"event": "reference", "rows": len(rows), "cached": found.cached})
        return found.log_probs

    return references


def _adapter_digest(folder: Path) -> str:
    return digest_json([digest_file(folder / name) for name in (WEIGHTS, CONFIG)])


def _copy_adapter(adapter: Path, folder: Path, job: TrainingRun) -> None:
    (folder / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes())
    # A folder of this machine is nobody else's business; the manifest names the base by digest
    config = json.loads((adapter / CONFIG).read_text("utf-8"))
    config["base_model_name_or_path"] = Path(job.base.name).name
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))
    recipe = {"values": _published(job.recipe), "origins": job.recipe_origins}
    (folder / "recipe.json").write_bytes(canonical_json(recipe))


def _published(recipe: Recipe) -> dict[str, Any]:
    """The recipe as others may read it: of the replay file, its name alone."""
    file = recipe.replay.file
    replay = replace(recipe.replay, file=None if file is None else Path(file).name)
    return replace(recipe, replay=replay).as_dict()


def _manifest(
    job: TrainingRun,
    data: TrainingData,
    steps: Sequence[Step],
    chosen: ChosenFormat,
    *,
    seconds: float,
) -> dict[str, Any]:
    return {
        "base_digest": job.base.digest,
        "base_name": Path(job.base.name).name,
        "snapshot": job.snapshot.digest,
        "recipe": _published(job.recipe),
        "rows": {step.name: len(step.rows) for step in steps},  # 0: the stage was left out
        "pairs": len(data.pairs.rows),
        "pairs_too_long": len(data.pairs.too_long),
        "too_long_conversations": sorted(set(data.too_long)),
        "pairs_of_other_thoughts": len(data.pairs.other_thoughts),
        "ai_pairs": len(data.ai_pairs.rows),  # those of `rlaif.labels` that were drawn
        "replay": {"rows": len(data.replay), "too_long": data.replay_too_long},
        "export_only": EXPORT_ONLY if job.recipe.adapter.weight_decomposed else None,
        "seconds": round(seconds, 1),
        "created_at": round(time.time()),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_LIBRARIES},
        "threads": torch.get_num_threads(),
        "processes": PartialState().num_processes,
        "number_format": asdict(chosen),
    }
