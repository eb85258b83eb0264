"""A trainer in a child process, one step at a time: `python -m benchmarks.tuning_child SPEC`.

SPEC is a JSON object: who ("ours" or "trl"), method ("dpo" or "sft"), data, model, cache, steps,
trl (changed arguments of trl's config), dtype of the weights (null: the engine's choice), gradients
(a file for those of the first step), held_out (how many pairs of other questions are judged at the
end), profile (whether the last step is profiled) and learning_rate (null: the recipe's). Prints one
JSON object a line: first that it is ready, then each step, which a line on stdin starts, then the
other results.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, TrainerCallback, set_seed
from trl import DPOConfig, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from benchmarks.tuning_data import pairs
from benchmarks.tuning_profile import StepProfile
from engine.hardware import detect
from engine.models.catalogue import BaseModel, linear_shapes, resolve
from engine.prompts.load import load_template_renderer
from engine.start import kernel_cache
from tuning.batch.budget import default_budget_tokens
from tuning.batch.collate import Packer, prompt_of_pair
from tuning.batch.forward import accept_layouts
from tuning.batch.reference import pair_log_probs
from tuning.kernels import choose_kernels
from tuning.kernels.portable import TuningKernels
from tuning.methods.base import Method
from tuning.methods.dpo import DpoRecipe
from tuning.methods.dpo_trainer import RenderedDPOTrainer
from tuning.methods.sft import SftRecipe
from tuning.methods.stage import Stage
from tuning.recipe import Recipe
from tuning.reference_cache import PairRow
from tuning.rows import TokenizedPairs, TrainingData

BATCH_PAIRS = 4
RANK = 16


class Turns(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Waits for a line on stdin before each step and prints the step's seconds."""

    def __init__(self, gradients: str | None, watched: int | None) -> None:
        self._gradients = gradients
        self._watched = watched  # the step to profile
        self._watch = StepProfile(RANK)
        self.shares: dict[str, float] = {}
        self._begun = 0.0
        self._seconds = 0.0

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Wait for the line, then start the clock."""
        if not sys.stdin.readline():
            os._exit(0)  # the parent process has ended
        if state.global_step + 1 == self._watched:
            self._watch.begin()
        self._begun = time.perf_counter()

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        """Keep the first step's gradients, before the optimizer uses them."""
        if self._gradients:
            found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            save_file(found, self._gradients)
            self._gradients = None

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._begun
        if state.global_step == self._watched:
            self.shares = self._watch.end()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """Print the step's report."""
        if "loss" in logs:
            step = {"loss": logs["loss"], "tokens": logs["num_tokens"], "seconds": self._seconds}
            _say({**step, "peak_bytes": _peak_bytes()})


def main() -> None:
    """Build the trainer and train."""
    imports_bytes = _peak_bytes()
    spec = json.loads(sys.argv[1])
    base = resolve(spec["model"], Path(spec["cache"]))
    renderer = load_template_renderer(base.folder)
    tokenizer = renderer.tokenizer
    source, rows = pairs(spec["data"], renderer)
    data = TokenizedPairs(tuple(rows[: BATCH_PAIRS * spec["steps"]]), ())
    held_out = _of_other_questions(rows, data.rows)[: spec["held_out"]]
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(spec["gradients"], spec["steps"] if spec["profile"] else None)
        kernels = choose_kernels(kernel_cache(Path(spec["cache"]))).kernels
        stage = Stage("benchmark", Path(folder), 0, tokenizer, turns, kernels=kernels)
        dtype = getattr(torch, spec["dtype"]) if spec["dtype"] else detect().dtype
        right_before = _decisions_before(base, dtype, held_out, kernels)
        model = _model(base, dtype)
        begun = time.perf_counter()
        trainer = (_ours if spec["who"] == "ours" else _trl)(spec, model, data, stage)
        seconds = time.perf_counter() - begun  # for DPO, mostly the reference pass
        _say({"made_seconds": seconds, "imports_bytes": imports_bytes, "source": source})
        trainer.train()
    if spec["profile"]:
        _say({"shares": turns.shares})
    if held_out:
        questions = [str(row["prompt_ids"]) for row in held_out]
        right = _decisions(model, held_out, kernels)
        _say({"right": right, "right_before": right_before, "questions": questions})


def _of_other_questions(rows: Sequence[PairRow], trained: Sequence[PairRow]) -> list[PairRow]:
    asked = [row["prompt_ids"] for row in trained]
    return [row for row in rows if row["prompt_ids"] not in asked]


def _decisions_before(
    base: BaseModel, dtype: torch.dtype, rows: Sequence[PairRow], kernels: TuningKernels
) -> list[float]:
    """Judge with a separate model, since judging would change the training."""
    return _decisions(_model(base, dtype), rows, kernels) if rows else []


def _decisions(model: PeftModel, rows: Sequence[PairRow], kernels: TuningKernels) -> list[float]:
    """Return 1 for each pair whose chosen side is likelier per token, else 0."""
    packer = Packer(DataCollatorForPreference(0), prompt_of_pair, default_budget_tokens())
    accept_layouts(model, kernels)
    sums = pair_log_probs(model, packer, rows)
    return [
        float(chosen / len(row["chosen_ids"]) > rejected / len(row["rejected_ids"]))
        for row, (chosen, rejected) in zip(rows, sums, strict=True)
    ]


def _model(base: BaseModel, dtype: torch.dtype) -> PeftModel:
    set_seed(0)
    plain = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype)
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear_shapes(base.folder)})
    return get_peft_model(
        plain,
        LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM"),
    )


def _ours(spec: dict[str, Any], model: PeftModel, data: TokenizedPairs, stage: Stage) -> Any:
    sft, dpo = _values(spec)
    method = replace(dpo if spec["method"] == "dpo" else sft, epochs=1, batch_pairs=BATCH_PAIRS)
    return method.trainer(model, _rows(method, data), stage)


def _rows(method: Method, data: TokenizedPairs) -> Dataset:
    return Dataset.from_list(list(method.rows(TrainingData(data))))


def _values(spec: dict[str, Any]) -> tuple[SftRecipe, DpoRecipe]:
    """Return the default recipe's sections, with the given learning rate if there is one."""
    sft, dpo = Recipe().sft, Recipe().dpo
    if rate := spec["learning_rate"]:
        sft, dpo = replace(sft, learning_rate=rate), replace(dpo, learning_rate=rate)
    return sft, dpo


def _trl(spec: dict[str, Any], model: PeftModel, data: TokenizedPairs, stage: Stage) -> Any:
    """Return trl's trainer on the same rows and losses, with the given settings."""
    sft, dpo = _values(spec)
    rate = (dpo if spec["method"] == "dpo" else sft).learning_rate
    arguments = stage.arguments(epochs=1, learning_rate=rate, batch=BATCH_PAIRS)
    arguments |= {"max_length": None, **spec["trl"]}
    common = {"model": model, "processing_class": stage.tokenizer, "callbacks": [stage.callback]}
    if spec["method"] == "sft":
        config = SFTConfig(**arguments, completion_only_loss=True)
        return SFTTrainer(args=config, train_dataset=_rows(sft, data), **common)
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]}
    config = DPOConfig(**arguments, **losses, precompute_ref_log_probs=True)
    return RenderedDPOTrainer(args=config, train_dataset=_rows(dpo, data), **common)


def _peak_bytes() -> int:
    """Return this process's peak memory in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _say(event: dict[str, Any]) -> None:
    print("event: " + json.dumps(event), flush=True)


if __name__ == "__main__":
    main()
