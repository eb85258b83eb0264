"""Creates random LoRA adapters of a given rank on every linear layer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.adapters.bundle import publish_bundle
from engine.adapters.files import CONFIG, WEIGHTS
from engine.models.catalogue import BaseModel, linear_shapes


def make_adapter(folder: Path, base: BaseModel, rank: int, seed: int) -> Path:
    """Write a random adapter into a new PEFT folder; returns the folder."""
    folder.mkdir(parents=True)
    _write(folder, base, rank, seed)
    return folder


def publish_adapter(root: Path, base: BaseModel, rank: int, seed: int) -> str:
    """Publish a random adapter as a bundle under `root`; returns its digest."""
    root.mkdir(parents=True, exist_ok=True)
    manifest = {"base_digest": base.digest, "snapshot": "sha256:" + "0" * 64}
    return publish_bundle(root, lambda folder: _write(folder, base, rank, seed), manifest)


def _write(folder: Path, base: BaseModel, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = linear_shapes(base.folder)
    tensors = {}
    for name, (out_features, in_features) in shapes.items():
        for side, shape in (("A", (rank, in_features)), ("B", (out_features, rank))):
            scale = 0.02 if side == "B" else in_features**-0.5
            tensor = torch.randn(shape, generator=generator) * scale
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = tensor
    save_file(tensors, folder / WEIGHTS)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({name.rsplit(".", 1)[1] for name in shapes}),
    }
    (folder / CONFIG).write_text(json.dumps(config))
