"""The bundle that a run starts from, where the recipe names one (`adapter.start`).

Its rank and scaling stand for the recipe's, since a trained adapter's cannot be changed. Knows no
trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.adapters.bundle import open_bundle
from engine.adapters.files import read_adapter_config
from engine.adapters.lora import PEFT_TYPES
from engine.errors import InvalidInput
from tuning.recipe import Recipe
from tuning.training_run import TrainingRun


def start_of(recipe: Mapping[str, Any]) -> str | None:
    """The bundle that a recipe in plain values, perhaps an old one, starts from."""
    start: str | None = recipe.get("adapter", {}).get("start")
    return start


def recipe_from(
    recipe: Recipe, origins: Mapping[str, str], start: str
) -> tuple[Recipe, dict[str, str]]:
    """A recipe and the origins of its values, with the bundle that training starts from."""
    adapter = replace(recipe.adapter, start=start)
    return replace(recipe, adapter=adapter), {**origins, "adapter.start": "recipe"}


def with_start(run: TrainingRun) -> tuple[TrainingRun, Path | None]:
    """The run with the rank and scaling of the adapter it starts from, and that adapter's folder.

    None where it starts from a fresh adapter. Raises `InvalidBundle` for a bundle that does not
    fit the base model, `InvalidInput` for one that is not LoRA.
    """
    asked = run.recipe.adapter
    if asked.start is None:
        return run, None
    folder = open_bundle(run.home.bundles, asked.start, run.base).folder
    config = read_adapter_config(folder)
    if config["peft_type"] not in PEFT_TYPES:
        raise InvalidInput(
            "adapter.start: virtual tokens are saved without the network that makes them, so"
            " training starts from LoRA adapters alone"
        )
    taken = {
        "rank": max([config["r"], *(config.get("rank_pattern") or {}).values()]),
        "alpha": round(config["lora_alpha"]),
        "dropout": float(config.get("lora_dropout", 0.0)),
        "rank_stabilised": bool(config.get("use_rslora")),
    }
    recipe = replace(run.recipe, adapter=replace(asked, **taken))
    origins = run.recipe_origins | {f"adapter.{name}": "start" for name in taken}
    return replace(run, recipe=recipe, recipe_origins=origins), folder
