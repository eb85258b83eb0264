"""One training run, top to bottom: snapshot and recipe in, bundle out.

Each stage leaves its adapter in a folder of its own, made visible by a rename; a run that was
killed goes on after the last finished stage, from the last checkpoint of the one it was in.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, set_seed

from engine.adapters.bundle import CONFIG, WEIGHTS, open_bundle, publish_bundle
from engine.hardware import detect
from engine.models.catalogue import BaseModel, linear_shapes, load_tokenizer
from engine.prompts.render import Renderer
from engine.storage import canonical_json, digest_file, digest_json
from feedback_store.snapshot import Snapshot
from tuning.dataset import TokenizedPairs, tokenize
from tuning.methods.common import References, Stage
from tuning.methods.dpo import train_dpo
from tuning.methods.sft import train_sft
from tuning.progress import Report
from tuning.recipe import Recipe
from tuning.reference_cache import Compute, LogProbs, ReferenceKey, Row, look_up
from tuning.step_reporter import StepReporter

Train = Callable[[PeftModel, TokenizedPairs, Recipe, Stage], None]
LIBRARIES = ("torch", "transformers", "trl", "peft")


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What one run reads and where it works."""

    base: BaseModel
    snapshot: Snapshot
    recipe: Recipe
    recipe_origins: dict[str, str]
    folder: Path  # checkpoints and finished stages
    bundles: Path


def run(job: TrainingRun, report: Report) -> str:
    """Train, publish and verify; returns the bundle's digest."""
    begun = time.monotonic()
    tokenizer = load_tokenizer(job.base.folder)
    pairs = tokenize(
        Renderer(tokenizer), job.snapshot.train.pairs, job.recipe.max_sequence_tokens,
        thoughts_in_loss=job.snapshot.manifest["thoughts_in_loss"],
    )  # fmt: skip
    report({"event": "data", "pairs": len(pairs.rows), "too_long": len(pairs.too_long)})
    adapter: Path | None = None
    for name, epochs, train in _stages(job.recipe):
        if epochs > 0:
            stage = Stage(
                name, job.folder / name, job.recipe.seed, tokenizer, StepReporter(name, report),
                _references(job, tokenizer, adapter, report),
            )  # fmt: skip
            adapter = _run_stage(job, stage, train, pairs, adapter)
    assert adapter is not None, "a recipe has at least one stage"
    digest = publish_bundle(
        job.bundles,
        lambda folder: _copy_adapter(adapter, folder, job),
        _manifest(job, pairs, seconds=time.monotonic() - begun),
    )
    open_bundle(job.bundles, digest, job.base)
    report({"event": "bundle", "bundle": digest})
    return digest


def _stages(recipe: Recipe) -> list[tuple[str, float, Train]]:
    return [("sft", recipe.sft.epochs, train_sft), ("dpo", recipe.dpo.epochs, train_dpo)]


def _run_stage(
    job: TrainingRun, stage: Stage, train: Train, pairs: TokenizedPairs, previous: Path | None
) -> Path:
    """Run one stage unless it is already finished; returns its adapter's folder."""
    finished = stage.folder / "adapter"
    if finished.is_dir():
        return finished
    set_seed(job.recipe.seed)
    model = _model(job, previous)
    train(model, pairs, job.recipe, stage)
    temporary = stage.folder / "adapter.tmp"
    model.save_pretrained(str(temporary), selected_adapters=["default"])
    temporary.rename(finished)
    return finished


def _references(
    job: TrainingRun, tokenizer: PreTrainedTokenizerBase, adapter: Path | None, report: Report
) -> References:
    """Reference log-probabilities of the model that a stage starts from, kept between jobs."""
    key = ReferenceKey(
        base=job.base.digest,
        # A fresh adapter changes nothing: the reference is the base model
        adapter=None if adapter is None else _adapter_digest(adapter),
        template=digest_json(tokenizer.chat_template),
        number_format=str(detect().dtype),
    )

    def references(rows: Sequence[Row], compute: Compute) -> Sequence[LogProbs]:
        found = look_up(job.bundles.parent / "references", key, rows, compute)
        report({"event": "reference", "rows": len(rows), "cached": found.cached})
        return found.log_probs

    return references


def _adapter_digest(folder: Path) -> str:
    return digest_json([digest_file(folder / name) for name in (WEIGHTS, CONFIG)])


def _model(job: TrainingRun, adapter: Path | None) -> PeftModel:
    """The base model with a fresh adapter, or with the one the previous stage made."""
    hardware = detect()
    base = AutoModelForCausalLM.from_pretrained(
        job.base.folder, dtype=hardware.dtype, device_map=hardware.device, use_safetensors=True
    )
    if adapter is not None:
        return PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
    recipe = job.recipe.adapter
    return get_peft_model(
        base,
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=sorted(
                {name.rsplit(".", 1)[-1] for name in linear_shapes(job.base.folder)}
            ),
            task_type="CAUSAL_LM",
        ),
    )


def _copy_adapter(adapter: Path, folder: Path, job: TrainingRun) -> None:
    (folder / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes())
    # A folder of this machine is nobody else's business; the manifest names the base by digest
    config = json.loads((adapter / CONFIG).read_text("utf-8"))
    config["base_model_name_or_path"] = Path(job.base.name).name
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))
    recipe = {"values": job.recipe.as_dict(), "origins": job.recipe_origins}
    (folder / "recipe.json").write_bytes(canonical_json(recipe))


def _manifest(job: TrainingRun, pairs: TokenizedPairs, *, seconds: float) -> dict[str, Any]:
    return {
        "base_digest": job.base.digest,
        "base_name": Path(job.base.name).name,
        "snapshot": job.snapshot.digest,
        "recipe": job.recipe.as_dict(),
        "pairs": len(pairs.rows),
        "pairs_too_long": len(pairs.too_long),
        "seconds": round(seconds, 1),
        "created_at": round(time.time()),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "threads": torch.get_num_threads(),
    }
