"""Prepare a run: choose the number format and, on CUDA, check that the memory suffices.

Knows the machine and the recipe; knows no data and no trainer. The check on CUDA is untested on a
GPU.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

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
    CUDA device already.
    """
    shape = max(linear_shapes(base).values(), key=lambda sizes: sizes[0] * sizes[1])
    with PartialState().main_process_first():  # others take what the first has measured
        chosen = choose_number_format(
            recipe.number_format, job, hidden_size=min(shape), mlp_size=max(shape)
        )
    report(NumberFormatChosen(**asdict(chosen)))
    if torch.cuda.is_available():
        free_bytes, card_bytes = torch.cuda.mem_get_info()
        plan = plan_of(base, recipe, chosen, free_bytes=free_bytes, card_bytes=card_bytes)
        by_use = {part.name: part.nbytes for part in plan.parts}
        report(MemoryPlanned(decision=plan.decision, reason=plan.reason, bytes=by_use))
        if plan.decision != "beside":
            raise ModelUnavailable(plan.reason)
    return chosen


def plan_of(
    base: Path, recipe: Recipe, chosen: ChosenFormat, *, free_bytes: int, card_bytes: int
) -> MemoryPlan:
    """Plan for a device with `free_bytes` free; the rest is taken to be the serving engine's.

    The largest pack is the budget, or one pair whose answers are both as long as allowed.
    """
    load = Load(
        tokens=max(default_budget_tokens(), 2 * recipe.max_sequence_tokens),
        weights=recipe.weights,
        number_format=chosen.number_format,
        rank=recipe.adapter.rank,
    )
    serving_bytes = card_bytes - free_bytes
    return plan_memory(
        shape_of(str(base)), load, card_bytes=card_bytes, serving_bytes=serving_bytes
    )
