"""REINFORCE with a leave-one-out baseline (RLOO; Ahmadian et al. 2024), on a reward model.

Supports: LoRA on a dense base, starting from any adapter. The algorithm: `rloo_trainer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tuning.methods.base import Method, TrainedKind
from tuning.methods.fields import BatchSize, Beta, Epochs, LearningRate
from tuning.rows import ExampleKind, Ids, TrainingData


@dataclass(frozen=True, slots=True)
class RlooRecipe(Method):
    """REINFORCE with a leave-one-out baseline; off by default.

    The model draws `samples` answers to each prompt at `temperature`, which at 1 is the policy
    itself. `beta` is the weight of the KL divergence from the adapter that the stage starts with.
    """

    needs: ClassVar[str] = "prompts of preference pairs"
    adapter_kinds: ClassVar[tuple[TrainedKind, ...]] = ("lora",)

    epochs: Epochs = 0
    learning_rate: LearningRate = 1e-5
    batch_prompts: BatchSize = 2
    samples: Annotated[int, "answers drawn for each prompt"] = 4
    beta: Beta = 0.03
    temperature: Annotated[float, "sampling temperature of those answers"] = 1.0
    max_new_tokens: Annotated[int, "longest of those answers, in tokens"] = 128

    def rules(self) -> dict[str, bool]:
        """See `Method`."""
        return {
            "batch_prompts must be at least 1": self.batch_prompts >= 1,
            "samples must be at least 2, or there is nothing to leave out": self.samples >= 2,
            "beta must not be negative": self.beta >= 0,
            "temperature must lie in (0, 10]": 0 < self.temperature <= 10,
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
        }

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        """Pairs, for their prompts."""
        return frozenset({"pairs"})

    def rows(self, data: TrainingData) -> list[dict[str, Ids]]:
        """Column prompt: each prompt of the pairs once, if it leaves room for an answer."""
        prompts = data.distinct_prompts(data.max_sequence_tokens - self.max_new_tokens)
        return [{"prompt": list(ids)} for ids in prompts]
