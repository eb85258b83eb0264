"""Odds ratio preference optimisation (Hong et al. 2024, eq. 6): SFT with a penalty, no reference.

Supports: LoRA on a dense or quantized base.
Assumes: rows already rendered by the one renderer (`tuning.dataset`).
Raises: whatever trl's ORPOTrainer raises. As trl has it, the likelihood term covers the prompt too;
the odds ratio covers the completions alone.
"""

from __future__ import annotations

import warnings
from typing import Any

from datasets import Dataset
from peft import PeftModel

from tuning.methods.common import Stage
from tuning.recipe import Recipe

with warnings.catch_warnings():
    # trl warns that this part of it may change; its version is pinned
    warnings.simplefilter("ignore")
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

SIDES = ("chosen", "rejected")


class RenderedORPOTrainer(ORPOTrainer):  # type: ignore[misc]  # trl is untyped here
    """trl's trainer on rows that are already token ids (see `RenderedDPOTrainer`)."""

    def tokenize_row(self, feature: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        """The row as it is."""
        return feature


def train_orpo(model: PeftModel, rows: Dataset, recipe: Recipe, stage: Stage) -> None:
    """Train the model's `default` adapter in place. Rows: `TrainingData.for_dpo`."""
    trainer = orpo_trainer(model, rows, recipe, stage)
    trainer.train(resume_from_checkpoint=stage.checkpoint)


def orpo_trainer(model: PeftModel, rows: Dataset, recipe: Recipe, stage: Stage) -> ORPOTrainer:
    """trl's own trainer, whose batches are padded."""
    orpo = recipe.orpo
    if stage.tokenizer.pad_token is None:  # as trl's other trainers do by themselves
        stage.tokenizer.pad_token = stage.tokenizer.eos_token
    return RenderedORPOTrainer(
        model=model,
        args=ORPOConfig(
            **stage.arguments(
                epochs=orpo.epochs, learning_rate=orpo.learning_rate, batch=orpo.batch_pairs
            ),
            max_length=recipe.max_sequence_tokens,  # nothing is longer; trl wants to be told
            beta=orpo.odds_weight,
            remove_unused_columns=False,
        ),
        train_dataset=Dataset.from_list([_columns(row) for row in rows]),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )


def _columns(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """As trl's own `tokenize_row` names them."""
    prompt = row["prompt_ids"]
    columns = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for side in SIDES:
        completion = row[f"{side}_ids"]
        columns |= {
            f"{side}_input_ids": prompt + completion,
            f"{side}_attention_mask": [1] * (len(prompt) + len(completion)),
            f"{side}_labels": [-100] * len(prompt) + completion,
        }
    return columns
