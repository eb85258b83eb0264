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

from tuning.methods.orpo import OrpoRecipe
from tuning.methods.stage import Stage

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


def make_orpo_trainer(
    model: PeftModel, rows: Dataset, recipe: OrpoRecipe, stage: Stage
) -> RenderedORPOTrainer:
    """trl's own trainer, whose batches are padded."""
    if stage.tokenizer.pad_token is None:  # as trl's other trainers do by themselves
        stage.tokenizer.pad_token = stage.tokenizer.eos_token
    return RenderedORPOTrainer(
        model=model,
        args=ORPOConfig(
            **stage.arguments(
                epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch=recipe.batch_pairs
            ),
            max_length=max(map(_tokens, rows)),  # trl wants to be told; nothing is cut
            beta=recipe.odds_weight,
            remove_unused_columns=False,
        ),
        train_dataset=Dataset.from_list([_columns(row) for row in rows]),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )


def _tokens(row: dict[str, list[int]]) -> int:
    """The tokens of the prompt with its longer completion."""
    return len(row["prompt_ids"]) + max(len(row[f"{side}_ids"]) for side in SIDES)


def _columns(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """The columns, named as trl's own `tokenize_row` does."""
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
