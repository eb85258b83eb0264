"""The recipe's section on the reward model that a run makes for RLOO and for its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from engine.adapters.lora_config import MAX_RANK
from tuning.methods.fields import BatchSize, Epochs, LearningRate


@dataclass(frozen=True, slots=True)
class RewardRecipe:
    """A reward model on the pairs; 0 epochs leaves it out.

    One epoch is what to try first: reward models overfit soon after (Ouyang et al. 2022, app. C.2).
    """

    epochs: Epochs = 0
    learning_rate: LearningRate = 1e-4
    batch_pairs: BatchSize = 4
    rank: Annotated[int, "size of the reward model's adapter"] = 16
    alpha: Annotated[int, "scaling of that adapter"] = 32

    def rules(self) -> Mapping[str, bool]:
        """Each rule as a message without the section's name, and whether it holds."""
        return {
            "epochs must not be negative": self.epochs >= 0,
            "learning_rate must lie in (0, 1)": 0 < self.learning_rate < 1,
            "batch_pairs must be at least 1": self.batch_pairs >= 1,
            f"rank must lie in 1..{MAX_RANK}": 1 <= self.rank <= MAX_RANK,
            "alpha must be at least 1": self.alpha >= 1,
        }
