"""Tuning jobs: a quick recipe, and a worker that trains nothing."""

from __future__ import annotations

from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import AdapterRecipe, Recipe

# With the 13 training pairs of `snapshot_of(16)`: 4 steps of SFT, 24 of DPO; checkpoints at 10, 20
TINY = Recipe(
    adapter=AdapterRecipe(rank=4, alpha=8),
    sft=SftRecipe(epochs=1, batch_pairs=4, learning_rate=0.01),
    dpo=DpoRecipe(epochs=6, batch_pairs=4, learning_rate=0.01),
    max_sequence_tokens=128,
)


DPO_STEPS = 24


WORKER = """#!/bin/sh
# In place of `python -m tuning.jobs.worker JOB_FOLDER`: says its pid, then works for a minute
echo $$ > "$3/pid"
exec sleep 60
"""
