"""Which engine runs a model, and how its weights are held: the fast one wherever it can."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.models.catalogue import BaseModel
from engine.models.families import is_covered
from engine.quantization import Quantization
from engine.request import Engine

EngineKind = Literal["auto", "local", "reference"]


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
    """A running engine; `auto` is the fast one for the families it decodes, else the reference.

    Raises `ModelUnavailable`.
    """
    if engine_kind(base, kind) == "local":
        from engine.local import LocalEngine

        return LocalEngine(
            base,
            kernel_cache=kernel_cache(model_cache),
            quantization=quantization,
            max_rows=max_rows,
            max_queue=max_queue,
            kv_cache_bytes=kv_cache_bytes,
        )
    from engine.reference import ReferenceEngine

    return ReferenceEngine(base, quantization=quantization, max_rows=max_rows, max_queue=max_queue)


def engine_kind(base: BaseModel, asked: EngineKind) -> Literal["local", "reference"]:
    """What `auto` comes to: the fast engine where it has a decoder for the model."""
    if asked != "auto":
        return asked
    return "local" if is_covered(base.folder) else "reference"


def kernel_cache(model_cache: Path) -> Path:
    """Where compiled kernels are kept."""
    return model_cache / "kernels"
