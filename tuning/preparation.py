"""Prepare a run: choose the number format, and check that the memory suffices on CUDA, and
wherever all weights are trained.

Knows the machine and the recipe; knows no data and no trainer. The check on CUDA is untested on a
GPU.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import psutil
import torch
from accelerate import PartialState

from engine.errors import ModelUnavailable
from engine.models.catalogue import linear_shapes
from tuning.batch.collate import default_budget_tokens
from tuning.jobs.events import MemoryPlanned, NumberFormatChosen, Report
from tuning.memory_plan import Load, MemoryPlan, plan_memory, shape_of
from tuning.number_format import ChosenFormat, choose_number_format
from tuning.recipe import Recipe


def prepare(job: Path, base: Path, recipe: Recipe, report: Report) -> ChosenFormat:
    """Choose the number format of the job in a folder, and check its memory.

    Raises `ModelUnavailable` with the reason where training does not fit beside what is on the
    CUDA device already, or in the memory that is left where all weights are trained.
    """
    whole = recipe.adapter.kind == "full"
    shape = max(linear_shapes(base).values(), key=lambda sizes: sizes[0] * sizes[1])
    with PartialState().main_process_first():  # others take what the first has measured
        chosen = choose_number_format(
            "fp32" if whole else recipe.number_format,
            job,
            hidden_size=min(shape),
            mlp_size=max(shape),
        )
    report(NumberFormatChosen(**asdict(chosen)))
    if torch.cuda.is_available() or whole:
        free_bytes, card_bytes = _memory()
        plan = plan_of(base, recipe, chosen, free_bytes=free_bytes, card_bytes=card_bytes)
        by_use = {part.name: part.nbytes for part in plan.parts}
        report(MemoryPlanned(decision=plan.decision, reason=plan.reason, bytes=by_use))
        if plan.decision != "beside":
            raise ModelUnavailable(plan.reason)
    return chosen


def _memory() -> tuple[int, int]:
    """Free bytes and all bytes of the device that trains."""
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
