"""The choice of the engine for a model, and its start: the fast engine wherever it can run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.models.architecture import Architecture
from engine.models.catalogue import BaseModel
from engine.models.checkpoint import FolderCheckpoint
from engine.models.families import architecture_of, is_covered
from engine.models.memory import require_memory
from engine.prompts.interface import ChatRenderer
from engine.prompts.load import load_serving_renderer
from engine.quantization import Quantization
from engine.request import Engine

EngineKind = Literal["auto", "local", "reference"]


@dataclass(frozen=True, slots=True)
class StartPlan:
    """The checked choices of a start."""

    kind: Literal["local", "reference"]
    renderer: ChatRenderer
    architecture: Architecture | None  # None where transformers decodes


def plan_start(
    base: BaseModel, kind: EngineKind, quantization: Quantization, model_cache: Path
) -> StartPlan:
    """Check everything that can be checked before a weight is read.

    That is the tokenizer, its chat template and end tokens, the headers of all weights, the
    settings that the fast engine must cover, and the memory. `burnish doctor` and every start call
    it. Raises `ModelUnavailable`.
    """
    chosen = engine_kind(base, kind)
    checkpoint = FolderCheckpoint(base.folder)  # raises on a damaged header
    architecture = None
    if chosen == "local":
        architecture = architecture_of(base.folder)
        require_memory(checkpoint, architecture, quantization)
    renderer = load_serving_renderer(base.folder, base.digest, model_cache)
    return StartPlan(chosen, renderer, architecture)


def start_engine(
    base: BaseModel,
    *,
    kind: EngineKind = "auto",
    quantization: Quantization,
    model_cache: Path,
    max_rows: int,
    max_queue: int,
    kv_cache_bytes: int | None = None,
) -> Engine:
    """Start an engine; `auto` is the fast one for the families it decodes, else the reference.

    Raises `ModelUnavailable`.
    """
    plan = plan_start(base, kind, quantization, model_cache)
    if plan.kind == "local":
        from engine.fast import FastEngine

        return FastEngine(
            base,
            renderer=plan.renderer,
            kernel_cache=kernel_cache(model_cache),
            quantization=quantization,
            max_rows=max_rows,
            max_queue=max_queue,
            kv_cache_bytes=kv_cache_bytes,
        )
    from engine.reference import ReferenceEngine

    return ReferenceEngine(
        base,
        renderer=plan.renderer,
        quantization=quantization,
        max_rows=max_rows,
        max_queue=max_queue,
    )


def engine_kind(base: BaseModel, asked: EngineKind) -> Literal["local", "reference"]:
    """Resolve `auto`: the fast engine ("local") where it has a decoder for the model."""
    if asked != "auto":
        return asked
    return "local" if is_covered(base.folder) else "reference"


def kernel_cache(model_cache: Path) -> Path:
    """The folder of compiled kernels."""
    return model_cache / "kernels"
