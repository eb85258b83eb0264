"""Supervised fine-tuning on good answers.

Supports: LoRA on a dense or quantized base; virtual tokens on a dense one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, get_args

from tuning.methods.base import Method, TrainedAdapter, TrainedKind
from tuning.methods.fields import BatchSize, Epochs, LearningRate
from tuning.rows import ExampleKind, Ids, SftAnswers, TrainingData


@dataclass(frozen=True, slots=True)
class SftRecipe(Method):
    """Supervised fine-tuning; `answers` are the pairs' chosen ones, the demonstrations, or both.

    Each text is taken once.
    """

    needs: ClassVar[str] = "answers to imitate"
    adapter_kinds: ClassVar[tuple[TrainedKind, ...]] = (*get_args(TrainedAdapter), "full")

    epochs: Epochs = 2
    learning_rate: LearningRate = 2e-4
    batch_pairs: BatchSize = 4
    answers: Annotated[
        SftAnswers, "which answers are imitated: chosen ones, demonstrations, or both"
    ] = "both"

    def rules(self) -> dict[str, bool]:
        """See `Method`."""
        return {"batch_pairs must be at least 1": self.batch_pairs >= 1}

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        """The kinds that `answers` names."""
        pairs: set[ExampleKind] = {"pairs"} if self.answers != "demonstrations" else set()
        return frozenset(pairs | ({"demonstrations"} if self.answers != "chosen" else set()))

    def rows(self, data: TrainingData) -> list[dict[str, Ids]]:
        """Prompt and answer as input_ids; completion_mask is 1 on the answer, which is learnt."""
        return [
            {
                "input_ids": row["prompt_ids"] + row["completion_ids"],
                "completion_mask": [0] * len(row["prompt_ids"]) + [1] * len(row["completion_ids"]),
            }
            for row in [*data.answers, *data.replay]
        ]
