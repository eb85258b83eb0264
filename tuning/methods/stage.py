"""A training stage: what every trainer is given, and the arguments that all losses share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback

from engine.errors import InvalidInput
from tuning.kernels import PORTABLE
from tuning.kernels.portable import TuningKernels
from tuning.reference_cache import Compute, PairLogProbs, PairRow

# Rows and a way to compute their reference log-probabilities -> those of each row
References = Callable[[Sequence[PairRow], Compute], Sequence[PairLogProbs]]
Reward = Callable[[Sequence[int]], float]  # token ids of prompt and completion -> score


def compute_references(rows: Sequence[PairRow], compute: Compute) -> Sequence[PairLogProbs]:
    """Compute all reference log-probabilities; the default of a stage, which has no cache."""
    return compute(rows)


def no_reward_model() -> Reward:
    """Raise `InvalidInput`; the default of a stage, which has no reward model."""
    raise InvalidInput("the recipe asks for no reward model: set reward.epochs")


@dataclass(frozen=True, slots=True)
class Stage:
    """One training stage: what a trainer needs beside the model, the rows and the recipe.

    `until_step` ends the stage early, at a point from which it can go on; `slice_rows` are rows
    that are scored and never trained on.
    """

    name: str
    folder: Path
    seed: int
    tokenizer: PreTrainedTokenizerBase
    callback: TrainerCallback
    references: References = compute_references
    kernels: TuningKernels = PORTABLE
    open_reward: Callable[[], Reward] = no_reward_model
    until_step: int | None = None
    slice_rows: Sequence[Mapping[str, Any]] = ()

    @property
    def checkpoint(self) -> str | None:
        """The newest complete checkpoint, to resume from.

        The trainer writes `trainer_state.json` last; a folder without a whole one is
        half-written.
        """
        folders = [path for path in self.folder.glob("checkpoint-*") if _is_whole(path)]
        return str(max(folders, key=lambda p: int(p.name.split("-")[1]))) if folders else None

    def arguments(self, *, epochs: float, learning_rate: float, batch: int) -> dict[str, Any]:
        """Keyword arguments for any trl config.

        Constant learning rate, as in QLoRA (Dettmers et al. 2023, app. B.2); AdamW and
        gradient clipping at 1.0 are the trainer's defaults.
        """
        return {
            "output_dir": str(self.folder),
            "num_train_epochs": epochs,
            "max_steps": -1 if self.until_step is None else self.until_step,
            "learning_rate": learning_rate,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": batch,
            "seed": self.seed,
            "data_seed": self.seed,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # it would log 0 for a loss that is not a number
            "save_strategy": "steps",
            "save_steps": 10,
            "save_total_limit": 2,
            "report_to": [],
            "disable_tqdm": True,
            "bf16": False,
            "fp16": False,
            "gradient_checkpointing": torch.cuda.is_available(),
            "dataloader_pin_memory": torch.cuda.is_available(),
            "use_cpu": not torch.cuda.is_available(),
        }


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True
