"""The interface between the fast engine and the kinds of adapters. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.models.catalogue import BaseModel
from engine.time_slices import YieldToEngine

if TYPE_CHECKING:
    from engine.adapters.lora_matrices import LoraMatrices
    from engine.models.decoder import CheckpointLayout, Decoder
    from engine.serving.block_manager import BlockManager
    from engine.serving.kv_cache import PagedCache
    from engine.serving.runner import EngineThread


@dataclass(frozen=True, slots=True)
class DecoderHost:
    """The parts of the fast engine that an adapter is opened for."""

    base: Path  # the checkpoint's folder
    decoder: Decoder
    layout: CheckpointLayout
    device: str
    native: bool  # whether the compiled kernels compute low-rank updates
    cache: PagedCache
    cache_manager: BlockManager
    thread: EngineThread  # what changes the cache is called through it


class DecoderAdapter(Protocol):
    """A loaded adapter of the fast engine: an `Adapter` that may change the decoder's matrices."""

    @property
    def digest(self) -> str:
        """See `Adapter`."""

    @property
    def virtual_tokens(self) -> int:
        """See `Adapter`."""

    @property
    def virtual_positions(self) -> int:
        """Positions that its virtual tokens take: one each, or none (`numbers_key_prefix`)."""

    @property
    def matrices(self) -> LoraMatrices | None:
        """The low-rank updates of its rows; None if it has none."""

    def close(self) -> None:
        """See `Adapter`."""


class AdapterKind(Protocol):
    """The module of a kind."""

    PEFT_TYPES: frozenset[str]  # the values of `peft_type` that it covers

    def problems(
        self,
        folder: Path,
        config: Mapping[str, Any],
        base: BaseModel,
        yield_to_engine: YieldToEngine,
    ) -> Iterator[str]:
        """Every reason to refuse the files of an adapter with this configuration."""

    def open_adapter(self, digest: str, folder: Path, host: DecoderHost) -> DecoderAdapter:
        """Load a *verified* adapter into the fast engine; called on the loader's thread.

        Raises `InvalidBundle` for one that cannot be run, `Overloaded` where it needs room in the
        cache and there is none.
        """
