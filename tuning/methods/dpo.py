"""Direct preference optimisation (Rafailov et al. 2023) on pairs.

Supports: LoRA on a dense or quantized base; virtual tokens on a dense one. The losses and their
sources: `dpo_trainer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from engine.errors import InvalidInput
from tuning.methods.base import Method
from tuning.methods.fields import BatchSize, Beta, Epochs, LearningRate
from tuning.rows import ExampleKind, Ids, TrainingData

DpoLoss = Literal["sigmoid", "ipo", "robust", "length-normalised"]
Reference = Literal["start", "base"]
FromStore = Literal["store"]  # a value that the snapshot knows


@dataclass(frozen=True, slots=True)
class DpoRecipe(Method):
    """Direct preference optimisation.

    `flip_rate` is the share of pairs whose sides are swapped, for the robust loss alone. The
    reference is the model as the stage starts, or the base model.
    """

    needs: ClassVar[str] = "preference pairs"

    epochs: Epochs = 1
    learning_rate: LearningRate = 2e-5
    batch_pairs: BatchSize = 4
    beta: Beta = 0.1
    sft_weight: Annotated[float, "weight of imitating the chosen answer of a pair"] = 1.0
    loss: Annotated[DpoLoss, "which loss; robust allows for votes that err"] = "sigmoid"
    flip_rate: Annotated[
        float | FromStore | None,
        "share of pairs the wrong way round, for robust alone; store estimates it",
    ] = None
    reference: Annotated[
        Reference, "what drift is measured from: the start of the stage, or the base model"
    ] = "start"

    def rules(self) -> dict[str, bool]:
        """See `Method`."""
        rate, robust = self.flip_rate, self.loss == "robust"
        return {
            "batch_pairs must be at least 1": self.batch_pairs >= 1,
            "beta must be positive": self.beta > 0,
            "sft_weight must not be negative": self.sft_weight >= 0,
            f"flip_rate does nothing with dpo.loss {self.loss}, only with robust": (
                robust or rate is None
            ),
            "loss robust needs dpo.flip_rate: a number, or store for the snapshot's own": (
                not robust or rate is not None
            ),
            "flip_rate must lie in (0, 0.5), since 0 is the sigmoid loss": (
                not robust or not isinstance(rate, float) or 0 < rate < 0.5
            ),
        }

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        """Pairs."""
        return frozenset({"pairs"})

    @property
    def reference_is_base(self) -> bool:
        """Return whether the reference is the base model, as `reference` says."""
        return self.reference == "base"

    def store_values(self, *, flip_rate: float | None, good: int, bad: int) -> dict[str, float]:
        """The flip rate, if the recipe leaves it to the store."""
        if self.flip_rate != "store":
            return {}
        if flip_rate is None:
            raise InvalidInput(
                "dpo.flip_rate: store asks how often votes err, and the snapshot cannot tell: too"
                " few answers were judged by several people; give a number, or use another dpo.loss"
            )
        if flip_rate >= 0.5:
            raise InvalidInput(
                "dpo.flip_rate: store: votes on the same answers agree no more than coins do, so"
                " nothing can be learnt from them"
            )
        return {"flip_rate": flip_rate}

    def rows(self, data: TrainingData) -> list[dict[str, Ids]]:
        """Columns prompt_ids, chosen_ids, rejected_ids: what trl's preference collator reads."""
        return data.preferences
