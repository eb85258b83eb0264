"""The specification of a training run. Knows no trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.home import Home
from engine.models.catalogue import BaseModel
from feedback_store.snapshots.snapshot import Snapshot
from tuning.recipe import Recipe


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training run: what it reads and where it works."""

    base: BaseModel
    snapshot: Snapshot
    recipe: Recipe
    recipe_origins: dict[str, str]
    folder: Path  # checkpoints and finished stages
    home: Home  # reference log-probabilities are kept, bundles and reward models published there
    kernel_cache: Path | None = None  # where compiled kernels are kept; None: torch's are used
