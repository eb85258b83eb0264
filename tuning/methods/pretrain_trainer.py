"""Continued pretraining: SFT's trainer on rows in which every token is learnt.

Supports: what `sft_trainer` supports.
Assumes: blocks of tokens (`tuning.text_blocks`).
Raises: whatever trl's SFTTrainer raises.
"""

from __future__ import annotations

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel
from trl import SFTTrainer

from tuning.methods.pretrain import PretrainRecipe
from tuning.methods.sft import SftRecipe
from tuning.methods.sft_trainer import make_sft_trainer
from tuning.methods.stage import Stage


def make_pretrain_trainer(
    model: PeftModel | PreTrainedModel, rows: Dataset, recipe: PretrainRecipe, stage: Stage
) -> SFTTrainer:
    """The trainer that suits the model: packed, or trl's own where packing is not possible."""
    as_sft = SftRecipe(
        epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch_pairs=recipe.batch_blocks
    )
    return make_sft_trainer(model, rows, as_sft, stage)
