"""Direct preference optimisation (Rafailov et al. 2023, eq. 7) with an SFT term on the chosen
answer (Pang et al. 2024, eq. 2), so that its likelihood does not fall.

Supports: LoRA on a dense or quantized base; the reference is the adapter as it came in.
Assumes: rows already rendered by the one renderer (`tuning.dataset`).
Raises: whatever trl's DPOTrainer raises.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from peft import PeftModel
from trl import DPOConfig, DPOTrainer

from tuning.dataset import TokenizedPairs
from tuning.methods.common import Stage
from tuning.recipe import Recipe


class RenderedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # trl is untyped here
    """trl's trainer on rows that are already token ids.

    trl would tokenize the messages itself, through the chat template alone; control-token text
    typed by a user would then become control tokens, in training only.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def train_dpo(model: PeftModel, pairs: TokenizedPairs, recipe: Recipe, stage: Stage) -> None:
    """Train the model's `default` adapter in place."""
    dpo = recipe.dpo
    trainer = RenderedDPOTrainer(
        model=model,
        args=DPOConfig(
            **stage.arguments(
                epochs=dpo.epochs, learning_rate=dpo.learning_rate, batch=dpo.batch_pairs
            ),
            max_length=None,
            beta=dpo.beta,
            loss_type=["sigmoid", "sft"] if dpo.sft_weight else ["sigmoid"],
            loss_weights=[1.0, dpo.sft_weight] if dpo.sft_weight else [1.0],
            precompute_ref_log_probs=True,  # once per pair instead of once per pair and epoch
        ),
        train_dataset=pairs.for_dpo(),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )
    trainer.train(resume_from_checkpoint=stage.checkpoint)
