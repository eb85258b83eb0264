"""Direct preference optimisation (Rafailov et al. 2023, eq. 7) with an SFT term on the chosen
answer (Pang et al. 2024, eq. 2), so that its likelihood does not fall.

Instead of eq. 7: IPO (Azar et al. 2023, eq. 17), the loss that allows for swapped pairs
(Chowdhury et al. 2024, sec. 3.1), or eq. 7 on log-probabilities per token (Lambert et al. 2024).

Supports: LoRA on a dense or quantized base; the reference is the adapter as it came in, or the base
model.
Assumes: rows already rendered by the one renderer (`tuning.dataset`).
Raises: whatever trl's DPOTrainer raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from datasets import Dataset
from peft import PeftModel
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import hash_module

from tuning.batch.budget import default_budget_tokens
from tuning.batch.collate import Collate, Packer, prompt_of_pair
from tuning.batch.forward import accept_layouts, packing_blocker, positions_of
from tuning.batch.reference import pair_log_probs
from tuning.batch.steps import BatchShare, Pack, PackedSteps
from tuning.distributed import shared_rows
from tuning.kernels.portable import TuningKernels
from tuning.methods.dpo import DpoLoss, DpoRecipe
from tuning.methods.stage import References, Stage
from tuning.reference_cache import PairLogProbs, PairRow

DPO_REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")  # trl's names
LOSSES: Mapping[DpoLoss, str] = {  # our names to trl's
    "sigmoid": "sigmoid",
    "ipo": "ipo",
    "robust": "robust",
    "length-normalised": "sigmoid_norm",
}
LOSS_COUNTS = {"sft": "chosen_tokens"}  # the mean of any other loss is over pairs


class RenderedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # trl is untyped here
    """trl's trainer on rows that are already token ids.

    trl would tokenize the messages itself, through the chat template alone; control-token text
    typed by a user would then become control tokens, in training only.

    The reference is the model as it is handed over, or `from_base` the base model.
    """

    def __init__(self, *args: Any, from_base: bool = False, **kwargs: Any) -> None:
        self._from_base = from_base
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        if self._from_base and "ref" in self.model.peft_config:
            # trl's copy of the start adapter; without it, its reference is the base. Its files of
            # log-probabilities are named by the model's hash, which must change with it
            self.model.delete_adapter("ref")
            self._precompute_model_hash = hash_module(self.model)
        return super()._precompute_ref_logps(dataset, *args, **kwargs)


class PackedDPOTrainer(PackedSteps, RenderedDPOTrainer):
    """The same losses on the same rows, computed in packs, each row's reference only once."""

    data_collator: Collate
    train_dataset: Dataset
    loss_weights: list[float]

    def __init__(
        self, *args: Any, references: References, kernels: TuningKernels, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        packer = Packer(
            self.data_collator, prompt_of_pair, default_budget_tokens(), positions_of(self.model)
        )
        accept_layouts(self.model, kernels)
        rows = self.train_dataset
        found = references(list(rows), partial(self._reference_log_probs, packer))
        for column, values in zip(DPO_REFERENCE_COLUMNS, zip(*found, strict=True), strict=True):
            rows = rows.add_column(column, list(values))
        self.data_collator, self.train_dataset = packer, rows
        self.precompute_ref_logps = True  # they are in the rows now

    def _reference_log_probs(
        self, packer: Packer, rows: Sequence[PairRow]
    ) -> Sequence[PairLogProbs]:
        with self.model.disable_adapter() if self._from_base else nullcontext():
            return pair_log_probs(self.model, packer, rows)

    def counts(self, pack: Pack) -> dict[str, int]:
        """Pairs, and scored tokens by side."""
        chosen, rejected = pack["completion_mask"][:, 1:].sum(1).chunk(2)
        counts = {"chosen_tokens": int(chosen.sum()), "rejected_tokens": int(rejected.sum())}
        return {"pairs": len(chosen), "tokens": sum(counts.values()), **counts}

    def counted_by(self, metric: str) -> str:
        """Return the count that trl's `_compute_loss` averages a metric over."""
        return {
            "entropy": "tokens",
            "mean_token_accuracy": "chosen_tokens",
            "logits/chosen": "chosen_tokens",
            "logits/rejected": "rejected_tokens",
        }.get(metric, "pairs")

    @contextmanager
    def scaled_loss(self, share: BatchShare) -> Iterator[None]:
        """Each loss is a mean over its pack; its weight makes it one over the batch."""
        weights = self.loss_weights
        self.loss_weights = [
            weight * share[LOSS_COUNTS.get(kind, "pairs")]
            for kind, weight in zip(self.loss_types, weights, strict=True)
        ]
        try:
            yield
        finally:
            self.loss_weights = weights


def make_dpo_trainer(
    model: PeftModel, rows: Dataset, recipe: DpoRecipe, stage: Stage
) -> RenderedDPOTrainer:
    """The trainer that suits the model: packed, or trl's own where packing is not possible."""
    packed = packing_blocker(model) is None
    args = DPOConfig(
        **stage.arguments(
            epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch=recipe.batch_pairs
        ),
        **_loss_arguments(recipe),
        max_length=None,  # too long pairs were left out, by name, when they were rendered
        precompute_ref_log_probs=not packed,  # once per pair instead of once per pair and epoch
    )
    kind = (
        partial(PackedDPOTrainer, references=stage.references, kernels=stage.kernels)
        if packed
        else RenderedDPOTrainer
    )
    return kind(
        model=model,
        args=args,
        train_dataset=rows if packed else shared_rows(rows, stage.folder / "rows"),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
        from_base=recipe.reference == "base",
    )


def _loss_arguments(recipe: DpoRecipe) -> dict[str, Any]:
    """trl's arguments of the loss; the recipe's flip rate is a number by now."""
    losses = {LOSSES[recipe.loss]: 1.0} | ({"sft": recipe.sft_weight} if recipe.sft_weight else {})
    return {
        "beta": recipe.beta,
        "loss_type": list(losses),
        "loss_weights": list(losses.values()),
        "label_smoothing": recipe.flip_rate or 0.0,
    }
