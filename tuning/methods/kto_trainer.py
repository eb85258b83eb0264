"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, eq. 7) on answers called good or bad.

Supports: LoRA on a dense or quantized base; the reference is the adapter as it came in.
Assumes: rows already rendered by the one renderer (`tuning.dataset`), good and bad ones; weights
settled (`KtoRecipe.store_values`).
Raises: whatever trl's KTOTrainer raises.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from trl import KTOConfig, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from engine.models.architecture import Positions
from tuning.batch.budget import default_budget_tokens
from tuning.batch.collate import Batch, Collate, DatasetRow, Packer, prompt_of_pair
from tuning.batch.forward import accept_layouts, layout_tensors, packing_blocker, positions_of
from tuning.batch.plan import Completion, TrainingPrompt, lay_out
from tuning.batch.reference import pair_log_probs
from tuning.distributed import shared_rows
from tuning.kernels.portable import TuningKernels
from tuning.methods.kto import KtoRecipe
from tuning.methods.stage import References, Stage

KTO_REFERENCE_COLUMNS = ("ref_logps", "ref_KL_logps")  # trl's names


class RenderedKTOTrainer(KTOTrainer):  # type: ignore[misc]  # trl is untyped here
    """trl's trainer on rows that are already token ids (see `RenderedDPOTrainer`)."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


class PackedKTOTrainer(RenderedKTOTrainer):
    """The same loss on the same rows without padding, each row's reference only once.

    A step is one pack, and not several as with DPO: its loss is not a mean of rows, since each
    row's depends on the KL of all.
    """

    data_collator: Any
    train_dataset: Dataset

    def __init__(
        self, *args: Any, references: References, kernels: TuningKernels, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        rows, collate = self.train_dataset, self.data_collator
        accept_layouts(self.model, kernels)
        # The reference reads a row as a pair: one prompt, its own completion and the mismatched one
        preference = DataCollatorForPreference(pad_token_id=collate.pad_token_id)
        positions = positions_of(self.model)
        packer = Packer(preference, prompt_of_pair, default_budget_tokens(), positions)
        found = references([_as_pair(r) for r in rows], partial(pair_log_probs, self.model, packer))
        for column, values in zip(KTO_REFERENCE_COLUMNS, zip(*found, strict=True), strict=True):
            rows = rows.add_column(column, list(values))
        self.data_collator, self.train_dataset = _WithLayouts(collate, positions), rows
        self.precompute_ref_logps = True  # they are in the rows now

    def _compute_kl_logps(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = super()._compute_kl_logps(model, {**batch, "layout": batch["KL_layout"]})
        return found


def make_kto_trainer(
    model: PeftModel, rows: Dataset, recipe: KtoRecipe, stage: Stage
) -> RenderedKTOTrainer:
    """The trainer that suits the model: packed, or trl's own where packing is not possible."""
    packed = packing_blocker(model) is None
    mixed = with_mismatched(rows, recipe.batch_answers, stage.seed)
    kind = (
        partial(PackedKTOTrainer, references=stage.references, kernels=stage.kernels)
        if packed
        else RenderedKTOTrainer
    )
    return kind(
        model=model,
        args=KTOConfig(
            **stage.arguments(
                epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch=recipe.batch_answers
            ),
            max_length=None,  # too long answers were left out, by name, when they were rendered
            beta=recipe.beta,
            desirable_weight=recipe.desirable_weight,
            undesirable_weight=recipe.undesirable_weight,
            precompute_ref_log_probs=not packed,  # once per answer instead of once per epoch
        ),
        train_dataset=mixed if packed else shared_rows(mixed, stage.folder / "rows"),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )


def with_mismatched(rows: Dataset, batch: int, seed: int) -> Dataset:
    """Rows in the order of training, each with another's completion as `KL_completion_ids`.

    The paper estimates the KL to the reference from mismatched prompts and completions of one
    step (sec. 4.1), so trl takes the rows as they stand and they are mixed here. A last step of
    one row borrows the completion of the first row.
    """
    mixed = list(rows)
    random.Random(seed).shuffle(mixed)  # noqa: S311
    paired: list[dict[str, Any]] = []
    for start in range(0, len(mixed), batch):
        step = mixed[start : start + batch]
        lenders = [step[-1], *step[:-1]] if len(step) > 1 else mixed[:1]
        paired += (
            {**row, "KL_completion_ids": lender["completion_ids"]}
            for row, lender in zip(step, lenders, strict=True)
        )
    return Dataset.from_list(paired)


@dataclass(frozen=True, slots=True)
class _WithLayouts:
    """trl's batch, with how its completions and its mismatched completions are laid out."""

    collate: Collate
    positions: Positions

    def __call__(self, rows: list[DatasetRow]) -> Batch:
        layouts = {
            name: layout_tensors(
                lay_out([_training_prompt(row, column) for row in rows], self.positions)
            )
            for name, column in (("layout", "completion_ids"), ("KL_layout", "KL_completion_ids"))
        }
        return {**self.collate(rows), **layouts}


def _training_prompt(row: DatasetRow, column: str) -> TrainingPrompt:
    completion = tuple(row[column])
    return TrainingPrompt(
        tuple(row["prompt_ids"]), (Completion(completion, (True,) * len(completion)),)
    )


def _as_pair(row: DatasetRow) -> dict[str, list[int]]:
    return {
        "prompt_ids": row["prompt_ids"],
        "chosen_ids": row["completion_ids"],
        "rejected_ids": row["KL_completion_ids"],
    }
