"""One objective over all evidence: DPO on pairs, KTO on lone judgements, SFT on good answers.

Supports: LoRA on a dense or quantized base; virtual tokens on a dense one. The losses and their
sources: `joint_loss.py`; the rows: `joint_rows.py`; the trainer: `joint_trainer.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from engine.storage import canonical_json, write_atomically
from tuning.methods.base import Method
from tuning.methods.dpo import FromStore
from tuning.methods.fields import BatchSize, Beta, Epochs, LearningRate
from tuning.methods.joint_rows import joint_rows
from tuning.rows import ExampleKind, TrainingData

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel

    from tuning.methods.stage import Stage

MOST_UNBALANCED = 10.0
CONTRIBUTIONS = "contributions.json"


@dataclass(frozen=True, slots=True)
class JointRecipe(Method):
    """One objective over all evidence, as a mean over the rows of a batch of every kind.

    A pair adds its DPO loss and `pair_sft_weight` times the chosen answer's SFT loss; a lone
    judgement its KTO loss, times `good_weight` or `bad_weight`; a demonstration (a correction or a
    liked answer) `demonstration_weight` times its SFT loss. `label_smoothing` is the probability
    that a pair's sides are swapped (Mitchell 2023): its loss is least at a margin of
    log((1 - p) / p), so that more training on the same pairs does not push further and further.

    A run has `epochs`, or fewer, though at least one, where that would be more than `most_steps`;
    or more, though at most `most_epochs`, where that would be less than `least_steps`.
    """

    needs: ClassVar[str] = "pairs, demonstrations, or good and bad lone judgements"

    epochs: Epochs = 0
    learning_rate: LearningRate = 1e-4
    batch_rows: BatchSize = 4
    most_steps: Annotated[
        int, "a run stops after so many steps, though not within its first epoch"
    ] = 150
    least_steps: Annotated[int, "a run on few examples goes on for so many steps"] = 24
    most_epochs: Annotated[float, "though it reads no example more often than this"] = 8
    beta: Beta = 0.1
    label_smoothing: Annotated[float, "how likely a pair is taken to be the wrong way round"] = (
        0.025
    )
    pair_sft_weight: Annotated[float, "weight of imitating the chosen answer of a pair"] = 0.2
    demonstration_weight: Annotated[float, "weight of corrections and liked answers"] = 1.0
    good_weight: Annotated[
        float | FromStore, "weight of a lone thumb up; store balances both by their numbers"
    ] = "store"
    bad_weight: Annotated[
        float | FromStore, "weight of a lone thumb down; store balances both by their numbers"
    ] = "store"

    def rules(self) -> dict[str, bool]:
        """See `Method`."""
        judged = (self.good_weight, self.bad_weight)
        return {
            "batch_rows must be at least 1": self.batch_rows >= 1,
            "most_steps must be at least 1": self.most_steps >= 1,
            "least_steps and joint.most_epochs must not be negative": (
                self.least_steps >= 0 and self.most_epochs >= 0
            ),
            "beta must be positive": self.beta > 0,
            "label_smoothing must lie in [0, 0.5)": 0 <= self.label_smoothing < 0.5,
            "pair_sft_weight must not be negative": self.pair_sft_weight >= 0,
            "demonstration_weight must not be negative": self.demonstration_weight >= 0,
            "good_weight and joint.bad_weight must not be negative": all(
                weight == "store" or float(weight) >= 0 for weight in judged
            ),
        }

    def epochs_of(self, rows: int) -> float:
        """The epochs of a run on so many rows."""
        least, most = (
            steps * self.batch_rows / rows for steps in (self.least_steps, self.most_steps)
        )
        return min(max(self.epochs, min(least, self.most_epochs)), max(1.0, most))

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        """All kinds."""
        return frozenset({"pairs", "demonstrations", "unpaired"})

    def store_values(self, *, flip_rate: float | None, good: int, bad: int) -> dict[str, float]:
        """Weights of good and bad judgements that are left to the store.

        Two times n / (2 n_good) and n / (2 n_bad), so that both sides weigh alike in sum, the lower
        bound of Ethayarajh et al. 2024, eq. 8. The factor of two: at the start, KTO's value
        function pulls an answer half as strongly as DPO does (its slope is 1/4 there, DPO's 1/2).
        The rarer side counts at most ten times as much as the other: our own choice, so that a few
        answers are not all that is learnt.
        """
        n = good + bad
        balanced = {"good_weight": n / good if good else 1.0, "bad_weight": n / bad if bad else 1.0}
        least = min(balanced.values())
        return {
            name: round(min(weight, MOST_UNBALANCED * least), 4)
            for name, weight in balanced.items()
            if getattr(self, name) == "store"
        }

    def train(self, model: PeftModel, rows: Dataset, stage: Stage) -> None:
        """See `Method`; what each kind of evidence did is left in the stage's folder."""
        from tuning.methods.joint_trainer import make_joint_trainer

        trainer = make_joint_trainer(model, rows, self, stage)
        trainer.train_on(stage.checkpoint)
        if trainer.is_world_process_zero():
            write_contributions(stage.folder, trainer.contributions())

    def rows(self, data: TrainingData) -> list[dict[str, Any]]:
        """See `joint_rows`."""
        return joint_rows(data)


def write_contributions(folder: Path, found: Mapping[str, Mapping[str, float | None]]) -> None:
    """Write what each kind of evidence did in a run into a folder.

    `found` is by kind: its rows, and the means of `joint_trainer.contributions`.
    """
    write_atomically(folder / CONTRIBUTIONS, canonical_json(found))


def read_contributions(folder: Path) -> dict[str, Any] | None:
    """The contributions in a stage's folder; None where the joint method did not run."""
    path = folder / CONTRIBUTIONS
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None
