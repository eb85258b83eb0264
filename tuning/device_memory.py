"""The memory of this machine's training device, and the plan of a recipe's run on it.

Imports torch, and none of the libraries that train.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from tuning.batch.budget import default_budget_tokens
from tuning.memory_plan import Load, MemoryPlan, plan_memory, shape_of
from tuning.number_format import ChosenFormat
from tuning.recipe import Recipe


def free_memory() -> tuple[int, int]:
    """Free bytes and all bytes of the device that trains, or else of this machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def plan_of(
    base: Path, recipe: Recipe, chosen: ChosenFormat, *, free_bytes: int, card_bytes: int
) -> MemoryPlan:
    """Plan for a device with `free_bytes` free; the rest is taken to be the serving engine's.

    The largest pack is the budget, or one pair whose answers are both as long as allowed. Where all
    weights are trained nothing is packed, and a batch may have the longest rows alone.
    """
    on_cuda = torch.cuda.is_available()
    whole = recipe.adapter.kind == "full"
    rows = max(recipe.sft.batch_pairs, recipe.pretrain.batch_blocks)
    pack = max(default_budget_tokens(), 2 * recipe.max_sequence_tokens)
    load = Load(
        tokens=rows * recipe.max_sequence_tokens if whole else pack,
        weights=recipe.weights,
        number_format=chosen.number_format,
        rank=recipe.adapter.rank,
        checkpointing=on_cuda,
        device="cuda" if on_cuda else "cpu",
        whole=whole,
    )
    serving_bytes = card_bytes - free_bytes
    return plan_memory(
        shape_of(str(base)), load, card_bytes=card_bytes, serving_bytes=serving_bytes
    )
