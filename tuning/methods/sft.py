"""Supervised fine-tuning on the chosen answers.

Supports: LoRA on a dense or quantized base; loss on the completion alone.
Assumes: rows already rendered by the one renderer (`tuning.dataset`).
Raises: whatever trl's SFTTrainer raises.
"""

from __future__ import annotations

from peft import PeftModel
from trl import SFTConfig, SFTTrainer

from tuning.dataset import TokenizedPairs
from tuning.methods.common import Stage
from tuning.recipe import Recipe


def train_sft(model: PeftModel, pairs: TokenizedPairs, recipe: Recipe, stage: Stage) -> None:
    """Train the model's `default` adapter in place."""
    sft = recipe.sft
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **stage.arguments(
                epochs=sft.epochs, learning_rate=sft.learning_rate, batch=sft.batch_pairs
            ),
            max_length=None,  # too long pairs were left out, by name, when they were rendered
            completion_only_loss=True,
        ),
        train_dataset=pairs.for_sft(),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )
    trainer.train(resume_from_checkpoint=stage.checkpoint)
