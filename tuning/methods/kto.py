"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024) on lone thumbs.

Supports: LoRA on a dense or quantized base; virtual tokens on a dense one. The loss and its
reference: `kto_trainer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from engine.errors import InvalidInput
from tuning.methods.base import Method
from tuning.methods.dpo import FromStore
from tuning.methods.fields import BatchSize, Beta, Epochs, LearningRate
from tuning.rows import ExampleKind, TrainingData


@dataclass(frozen=True, slots=True)
class KtoRecipe(Method):
    """Kahneman-Tversky optimisation; off by default.

    The weights are those of good and bad answers; "store" computes them from their counts.
    """

    needs: ClassVar[str] = "lone judgements"

    epochs: Epochs = 0
    learning_rate: LearningRate = 5e-5
    batch_answers: BatchSize = 8
    beta: Beta = 0.1
    desirable_weight: Annotated[
        float | FromStore, "weight of a lone thumb up; store balances both by their numbers"
    ] = "store"
    undesirable_weight: Annotated[
        float | FromStore, "weight of a lone thumb down; store balances both by their numbers"
    ] = "store"

    def rules(self) -> dict[str, bool]:
        """See `Method`."""
        weights = (self.desirable_weight, self.undesirable_weight)
        return {
            "batch_answers must be at least 2, since the others tell the drift from the"
            " reference": self.batch_answers >= 2,
            "beta must be positive": self.beta > 0,
            "desirable_weight and kto.undesirable_weight must be positive": all(
                weight == "store" or float(weight) > 0 for weight in weights
            ),
        }

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        """Lone judgements."""
        return frozenset({"unpaired"})

    def store_values(self, *, flip_rate: float | None, good: int, bad: int) -> dict[str, float]:
        """Weights that are left to the store, so that both sides weigh alike in sum.

        good * desirable = bad * undesirable: the lower bound of Ethayarajh et al. 2024, eq. 8.
        Where both are left to the store, the larger side has weight 1.
        """
        if good + bad == 0:
            return {}
        if not good or not bad:
            raise InvalidInput(
                f"kto needs good and bad votes, and the snapshot has {good} good and {bad} bad"
            )
        up, down = self.desirable_weight, self.undesirable_weight
        if up == down == "store":
            both = max(1.0, bad / good), max(1.0, good / bad)
            return {"desirable_weight": both[0], "undesirable_weight": both[1]}
        if up == "store":
            return {"desirable_weight": float(down) * bad / good}
        return {"undesirable_weight": float(up) * good / bad} if down == "store" else {}

    def rows(self, data: TrainingData) -> list[dict[str, Any]]:
        """Columns prompt_ids, completion_ids, label."""
        return list(data.unpaired.rows)
