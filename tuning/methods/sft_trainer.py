"""Supervised fine-tuning on good answers.

Supports: LoRA on a dense or quantized base, all weights of a dense one; loss on the completion
alone.
Assumes: rows already rendered by the one renderer (`tuning.dataset`).
Raises: whatever trl's SFTTrainer raises.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from tuning.batch.budget import default_budget_tokens
from tuning.batch.collate import Collate, Packer, prompt_of_example
from tuning.batch.forward import accept_layouts, packing_blocker, positions_of
from tuning.batch.steps import BatchShare, Pack, PackedSteps
from tuning.kernels.portable import TuningKernels
from tuning.methods.sft import SftRecipe
from tuning.methods.stage import Stage


class PackedSFTTrainer(PackedSteps, SFTTrainer):  # type: ignore[misc]  # trl is untyped here
    """trl's loss on the same rows, computed in packs."""

    data_collator: Collate

    def __init__(self, *args: Any, kernels: TuningKernels, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_collator = Packer(
            self.data_collator, prompt_of_example, default_budget_tokens(), positions_of(self.model)
        )
        accept_layouts(self.model, kernels)

    def counts(self, pack: Pack) -> dict[str, int]:
        """Scored tokens."""
        return {"tokens": int((pack["labels"][:, 1:] != -100).sum())}

    def counted_by(self, metric: str) -> str:
        """Entropy and accuracy are means over scored tokens."""
        return "tokens"

    def scaled_loss(self, share: BatchShare) -> AbstractContextManager[None]:
        """trl divides by the tokens of the whole batch already."""
        return nullcontext()

    def _get_num_items_in_batch(self, batches: list[Pack], *args: Any) -> Tensor | int | None:
        packs = [pack for batch in batches for pack in batch["packs"]]
        count: Tensor | int | None = super()._get_num_items_in_batch(packs, *args)
        return count


def make_sft_trainer(
    model: PeftModel | PreTrainedModel, rows: Dataset, recipe: SftRecipe, stage: Stage
) -> SFTTrainer:
    """The trainer that suits the model: packed, or trl's own where packing is not possible."""
    kind = (
        SFTTrainer if packing_blocker(model) else partial(PackedSFTTrainer, kernels=stage.kernels)
    )
    return kind(
        model=model,
        args=SFTConfig(
            **stage.arguments(
                epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch=recipe.batch_pairs
            ),
            max_length=None,  # too long pairs were left out, by name, when they were rendered
            completion_only_loss=True,
        ),
        train_dataset=rows,
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )
