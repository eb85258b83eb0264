"""A trained adapter as a bundle: the files that others may read, and the manifest of its run."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from engine.adapters.bundle import open_bundle, open_model, publish_bundle
from engine.adapters.files import WEIGHTS, read_adapter_config, write_adapter_config
from engine.storage import canonical_json
from tuning.recipe import Recipe
from tuning.rows import TrainingData
from tuning.training_run import TrainingRun
from tuning.whole_model import write_model

RECORDED_LIBRARIES = ("torch", "transformers", "trl", "peft")
EXPORT_ONLY = "DoRA is not computed per row of a batch: export this adapter merged into the weights"


def publish_adapter(
    run: TrainingRun, adapter: Path, data: TrainingData, about: Mapping[str, Any]
) -> str:
    """Publish what a run's last stage left as a bundle and verify it; returns the digest.

    It is an adapter, or a whole model. `about` goes into the manifest, beside what the other
    arguments say. Raises `InvalidBundle` where an engine would refuse the bundle.
    """
    whole = run.recipe.adapter.kind == "full"

    def fill(folder: Path) -> None:
        values = {"values": published_recipe(run.recipe), "origins": run.recipe_origins}
        (folder / "recipe.json").write_bytes(canonical_json(values))
        if whole:
            write_model(adapter, run.base, folder)
            return
        (folder / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes())
        write_adapter_config(folder, read_adapter_config(adapter), run.base.name)

    manifest = {
        **({"kind": "model"} if whole else {}),
        "base_digest": run.base.digest,
        "base_name": Path(run.base.name).name,
        "snapshot": run.snapshot.digest,
        "recipe": published_recipe(run.recipe),
        "export_only": EXPORT_ONLY if run.recipe.adapter.weight_decomposed else None,
        **_counts(data),
        **_machine(),
        **about,
    }
    digest = publish_bundle(run.home.bundles, fill, manifest)
    if whole:
        open_model(run.home.bundles, digest)
    elif not run.recipe.adapter.weight_decomposed:  # an engine refuses DoRA, and says so
        open_bundle(run.home.bundles, digest, run.base)
    return digest


def published_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as others may read it: of files and folders, their names alone."""
    replay = replace(recipe.replay, file=_name_of(recipe.replay.file))
    pretrain = replace(recipe.pretrain, text=_name_of(recipe.pretrain.text))
    return replace(recipe, replay=replay, pretrain=pretrain).as_dict()


def _name_of(path: str | None) -> str | None:
    return None if path is None else Path(path).name


def _counts(data: TrainingData) -> dict[str, Any]:
    return {
        "pairs": len(data.pairs.rows),
        "pairs_too_long": len(data.pairs.too_long),
        "too_long_conversations": sorted(set(data.too_long)),
        "pairs_of_other_thoughts": len(data.pairs.other_thoughts),
        "ai_pairs": len(data.ai_pairs.rows),  # those of `rlaif.labels` that were drawn
        "replay": {"rows": len(data.replay), "too_long": data.replay_too_long},
    }


def _machine() -> dict[str, Any]:
    return {
        "created_at": round(time.time()),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_LIBRARIES},
        "threads": torch.get_num_threads(),
        "processes": PartialState().num_processes,
    }
