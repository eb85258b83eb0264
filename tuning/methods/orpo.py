"""Odds ratio preference optimisation (Hong et al. 2024) on pairs: SFT with a penalty, no reference.

Supports: LoRA on a dense or quantized base; a prefix on a dense one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tuning.methods.base import Method, TrainedKind
from tuning.methods.fields import BatchSize, Epochs, LearningRate
from tuning.rows import ExampleKind, Ids, TrainingData


@dataclass(frozen=True, slots=True)
class OrpoRecipe(Method):
    """Odds ratio preference optimisation; off by default.

    `odds_weight` is the paper's lambda, which trl calls beta.
    """

    needs: ClassVar[str] = "preference pairs"
    # trl's ORPO has no labels for the virtual tokens of the other kinds
    adapter_kinds: ClassVar[tuple[TrainedKind, ...]] = ("lora", "prefix")

    epochs: Epochs = 0
    learning_rate: LearningRate = 2e-4
    batch_pairs: BatchSize = 4
    odds_weight: Annotated[float, "weight of preferring the chosen answer beside imitating it"] = (
        0.1
    )

    def rules(self) -> dict[str, bool]:
        """See `Method`."""
        return {
            "batch_pairs must be at least 1": self.batch_pairs >= 1,
            "odds_weight must be positive": self.odds_weight > 0,
        }

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        """Pairs."""
        return frozenset({"pairs"})

    def rows(self, data: TrainingData) -> list[dict[str, Ids]]:
        """Columns prompt_ids, chosen_ids, rejected_ids."""
        return data.preferences
