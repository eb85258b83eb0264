"""Prepare a run: choose the number format, and check that the memory suffices on CUDA, and
wherever all weights are trained.

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
from tuning.device_memory import free_memory, plan_of
from tuning.jobs.events import MemoryPlanned, NumberFormatChosen, Report
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
        free_bytes, card_bytes = free_memory()
        plan = plan_of(base, recipe, chosen, free_bytes=free_bytes, card_bytes=card_bytes)
        by_use = {part.name: part.nbytes for part in plan.parts}
        report(MemoryPlanned(decision=plan.decision, reason=plan.reason, bytes=by_use))
        if plan.decision != "beside":
            raise ModelUnavailable(plan.reason)
    return chosen
