"""Bundles for a tiny base model, requests and answers, for several test folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.adapters.bundle import publish_bundle
from engine.messages import Message
from engine.models.catalogue import BaseModel, linear_shapes
from engine.request import Engine, Finished, GenerationRequest, SamplingParams, collect

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# It opens the think block, or closes it where the system message says so, as Nemotron Nano v2's
THINKS_UNLESS_TOLD = CHATML.replace(
    "assistant\n",
    "assistant\n{% if '/no_think' in messages[0].content %}<think></think>"
    "{% else %}<think>\n{% endif %}",
)
RANK, ALPHA = 4, 8
NO_SNAPSHOT = "sha256:" + "0" * 64
Tensors = dict[str, Tensor]


def make_bundle(
    root: Path,
    base: BaseModel,
    seed: int = 0,
    scale: float = 0.3,
    *,
    config: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
    doctor: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    write_more: Callable[[Path], object] = lambda folder: None,
) -> str:
    """Publish a random rank-4 LoRA bundle for `base`; returns its digest.

    `config` and `manifest` replace entries, `doctor` changes the tensors and `write_more` the
    files: the bundle is published whole, so that its digests are right whatever it holds.
    """

    def write(folder: Path) -> None:
        text = json.dumps(adapter_config(base) | dict(config or {}))
        (folder / "adapter_config.json").write_text(text)
        tensors = doctor(random_tensors(base, seed, scale))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        write_more(folder)

    given = {"base_digest": base.digest, "snapshot": NO_SNAPSHOT, **(manifest or {})}
    return publish_bundle(root, write, given)


def adapter_config(base: BaseModel) -> dict[str, Any]:
    """The PEFT configuration of `make_bundle`'s adapters."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "inference_mode": True,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rsplit(".", 1)[1] for name in linear_shapes(base.folder)}),
    }


def random_tensors(base: BaseModel, seed: int, scale: float) -> Tensors:
    """Normally distributed LoRA matrices for every linear layer of `base`."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for module, (out_features, in_features) in linear_shapes(base.folder).items():
        for side, shape in (("A", (RANK, in_features)), ("B", (out_features, RANK))):
            key = f"base_model.model.{module}.lora_{side}.weight"
            tensors[key] = scale * torch.randn(shape, generator=generator)
    return tensors


def ask(
    text: str, *, adapter: str | None = None, max_new_tokens: int = 24, **sampling: Any
) -> GenerationRequest:
    """A request of one user message, greedy unless told otherwise."""
    params = SamplingParams(**{"temperature": 0, "max_new_tokens": max_new_tokens, **sampling})
    return GenerationRequest((Message("user", text),), params, adapter)


def answer(engine: Engine, text: str, **options: Any) -> Finished:
    """The finished answer to `ask(text, **options)`."""
    return collect(engine.submit(ask(text, **options)))
