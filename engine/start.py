"""The choice of the engine for a model, and its start: the fast engine wherever it can run."""

from __future__ import annotations

from collections.abc import Sequence
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

EngineKind = Literal["auto", "local", "reference", "remote"]


@dataclass(frozen=True, slots=True)
class StartPlan:
    """The checked choices of a start."""

    kind: Literal["local", "reference", "remote"]
    renderer: ChatRenderer
    architecture: Architecture | None  # None where another library decodes


def plan_start(
    base: BaseModel, kind: EngineKind, quantization: Quantization, model_cache: Path
) -> StartPlan:
    """Check everything that can be checked before a weight is read.

    That is the tokenizer, its chat template and end tokens, the headers of all weights, the
    settings that the fast engine must cover, and the memory. `burnish doctor` and every start call
    it. Raises `ModelUnavailable`.
    """
    chosen = engine_kind(base, kind)
    architecture = None
    if chosen == "remote":  # its servers read the weights
        renderer = load_serving_renderer(base.folder, base.digest, model_cache)
        return StartPlan(chosen, renderer, architecture)
    checkpoint = FolderCheckpoint(base.folder)  # raises on a damaged header
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
    remote_urls: Sequence[str] = (),
    remote_api_key: str | None = None,
) -> Engine:
    """Start an engine; `auto` is the fast one for the families it decodes, else the reference.

    `remote` needs the URLs of vLLM's servers. Raises `ModelUnavailable`, and `PeerUnavailable`
    where one of those does not answer.
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
    if plan.kind == "remote":
        from engine.remote.engine import RemoteEngine

        return RemoteEngine(
            base,
            plan.renderer,
            remote_urls,
            max_streams=max_rows + max_queue,
            api_key=remote_api_key,
        )
    from engine.reference import ReferenceEngine

    return ReferenceEngine(
        base,
        renderer=plan.renderer,
        quantization=quantization,
        max_rows=max_rows,
        max_queue=max_queue,
    )


def engine_kind(base: BaseModel, asked: EngineKind) -> Literal["local", "reference", "remote"]:
    """Resolve `auto`: the fast engine ("local") where it has a decoder for the model."""
    if asked != "auto":
        return asked
    return "local" if is_covered(base.folder) else "reference"


def kernel_cache(model_cache: Path) -> Path:
    """The folder of compiled kernels."""
    return model_cache / "kernels"
