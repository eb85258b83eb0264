"""The recipe's sections on reward models, RLOO and AI labels. Plain values; know no trainer.

Each is off by default: 0 epochs, or no labels. Why each default is what it is stands in
`tuning/recipes/default.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.adapters.lora import MAX_RANK


def labels_of(recipe: Mapping[str, Any]) -> str | None:
    """The AI labels that a recipe in plain values, perhaps an old one, names."""
    labels: str | None = recipe.get("rlaif", {}).get("labels")
    return labels


@dataclass(frozen=True, slots=True)
class RewardRecipe:
    """A reward model on the pairs; 0 epochs leaves it out.

    One epoch is what to try first: reward models overfit soon after (Ouyang et al. 2022, app. C.2).
    """

    epochs: float = 0
    learning_rate: float = 1e-4
    batch_pairs: int = 4
    rank: int = 16
    alpha: int = 32

    def problems(self) -> list[str]:
        """What is out of range."""
        return _broken(
            {
                "reward.epochs must not be negative": self.epochs >= 0,
                "reward.learning_rate must lie in (0, 1)": 0 < self.learning_rate < 1,
                "reward.batch_pairs must be at least 1": self.batch_pairs >= 1,
                f"reward.rank must lie in 1..{MAX_RANK}": 1 <= self.rank <= MAX_RANK,
                "reward.alpha must be at least 1": self.alpha >= 1,
            }
        )


@dataclass(frozen=True, slots=True)
class RlooRecipe:
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024); 0 epochs leaves it out.

    `samples` answers to each prompt, drawn at `temperature`, which at 1 is the policy itself.
    `beta` is the weight of the KL divergence from the adapter that the stage starts with.
    """

    epochs: float = 0
    learning_rate: float = 1e-5
    batch_prompts: int = 2
    samples: int = 4
    beta: float = 0.03
    temperature: float = 1.0
    max_new_tokens: int = 128

    def problems(self) -> list[str]:
        """What is out of range."""
        return _broken(
            {
                "rloo.epochs must not be negative": self.epochs >= 0,
                "rloo.learning_rate must lie in (0, 1)": 0 < self.learning_rate < 1,
                "rloo.batch_prompts must be at least 1": self.batch_prompts >= 1,
                "rloo.samples must be at least 2, or there is nothing to leave out": (
                    self.samples >= 2
                ),
                "rloo.beta must not be negative": self.beta >= 0,
                "rloo.temperature must lie in (0, 10]": 0 < self.temperature <= 10,
                "rloo.max_new_tokens must be at least 1": self.max_new_tokens >= 1,
            }
        )


@dataclass(frozen=True, slots=True)
class RlaifRecipe:
    """Pairs that an AI judge labelled, beside those of people in DPO.

    `labels` is the id of a set of labels; null leaves them out. `share` is the part of them that is
    used: each has that chance of being drawn, so that in expectation it weighs `share` times what a
    person's pair does (`feedback_store.ai_feedback.ai_pairs.draw`).
    """

    labels: str | None = None
    share: float = 0.25

    def problems(self) -> list[str]:
        """What is out of range."""
        return _broken({"rlaif.share must lie in (0, 1)": 0 < self.share < 1})


def _broken(rules: dict[str, bool]) -> list[str]:
    return [problem for problem, holds in rules.items() if not holds]
