"""The fast engine: our own decoder, quantized weights, one batch of many sequences and adapters.

Knows how scheduled chunks become one step of the decoder; the engine's thread, its queue and its
streams are `engine.serving`'s.
"""

from __future__ import annotations

from collections import abc
from pathlib import Path
from typing import cast

import psutil
import torch
from torch import Tensor

from engine.adapters.interface import DecoderAdapter, DecoderHost
from engine.adapters.kinds import kind_in
from engine.adapters.lora_matrices import LoraMatrices, StepAdapters
from engine.errors import ModelUnavailable
from engine.hardware import detect
from engine.kernels.interface import PAGE_TOKENS, AttentionMetadata
from engine.models.catalogue import BaseModel
from engine.models.checkpoint import open_checkpoint
from engine.models.decoder import DecoderConfig
from engine.models.families import architecture_of
from engine.models.kernel_selection import select_kernels
from engine.models.loading import WeightFormat, load_decoder
from engine.models.memory import require_memory, trim_heap
from engine.prompts.interface import ChatRenderer
from engine.prompts.load import load_renderer
from engine.quantization import Quantization
from engine.serving.block_manager import BlockManager
from engine.serving.engine import ServingEngine
from engine.serving.kv_cache import PagedCache, page_bytes, pages_for
from engine.serving.runner import EngineThread, StepOutput
from engine.serving.sequence import ScheduledChunk, Sequence
from engine.serving.watchdog import HANG_SECONDS

# The part of the free memory that keys and values may take unless a budget is given
CACHE_SHARE = 0.2
MAX_CACHE_BYTES = 2 << 30
# What conversations that nobody goes on with may hold, unless the operator has set a budget: some
# 11,000 tokens of the embedded model. Our own choice; more would grow a day's memory, less would
# read the conversations of a few people anew
MAX_IDLE_CACHE_BYTES = 256 << 20


class DecoderRunner:
    """Implements `ModelRunner` with our decoder over a paged cache."""

    hang_seconds = HANG_SECONDS

    def __init__(
        self,
        base: BaseModel,
        *,
        kernel_cache: Path,
        quantization: Quantization,
        dtype: torch.dtype | None,
        kv_cache_bytes: int | None,
        prefix_cache: bool,
    ) -> None:
        """See `FastEngine`."""
        hardware = detect()
        self._device = hardware.device
        self._base = base
        checkpoint = open_checkpoint(base.folder, base.gguf if quantization != "none" else None)
        architecture = architecture_of(base.folder)
        self._config = architecture.config
        self._layout, self._positions = architecture.layout, architecture.positions
        require_memory(checkpoint, architecture, quantization)
        choice = select_kernels(self._device, kernel_cache, architecture.widths)
        self.kernels_reason = choice.reason
        self.native = choice.native if quantization != "none" else None
        weight_format = WeightFormat(quantization, self._device, dtype or hardware.dtype, choice)
        with torch.inference_mode():
            self.decoder = load_decoder(checkpoint, architecture, weight_format)
        del checkpoint
        trim_heap()
        self.cache = _make_cache(
            self._config,
            torch.float32 if quantization == "none" else torch.float16,
            self._device,
            budget=kv_cache_bytes,
            share=prefix_cache,
        )
        self.cache_manager = BlockManager(self.cache)
        self.vocabulary = self._config.vocabulary
        self.whole_prompts = self._config.prefix_lm

    @property
    def context_tokens(self) -> int:
        """See `ModelRunner`: what the model and the cache's budget can hold."""
        return min(self._config.context_tokens, self.cache_manager.capacity_tokens)

    def prefix_tokens(self, prompt_ids: abc.Sequence[int]) -> int:
        """See `ModelRunner`."""
        return self._positions.prefix(prompt_ids)

    def run(self, chunks: list[ScheduledChunk]) -> StepOutput:
        """See `ModelRunner`: all chunks in one forward pass."""
        ids: list[int] = []
        positions: list[Tensor] = []
        slots: list[Tensor] = []
        sequences: list[tuple[int, int, int, int]] = []
        logit_rows: list[int] = []
        hidden_rows: list[int] = []
        tables: list[list[int]] = []
        for chunk in chunks:
            sequence, begin, end = chunk.sequence, chunk.begin, chunk.end
            prompt_ids, table = sequence.prompt_ids, sequence.block_table
            assert table is not None
            first = len(ids)
            ids += sequence.ids(begin, end)
            skipped = _unnumbered_tokens(sequence)
            positions.append(self._positions(prompt_ids[skipped:], begin - skipped, end - skipped))
            slots.append(table.slots(begin, end))
            tables.append(table.pages)
            sequences.append((first, end - begin, begin, self._positions.prefix(prompt_ids)))
            rows = hidden_rows if chunk.takes_hidden_states else logit_rows
            rows += [first + token for token in chunk.wanted]
        cos, sin = self.decoder.angles(torch.cat(positions).to(self._device))
        metadata = AttentionMetadata(
            torch.tensor(sequences),
            _page_table(tables),
            torch.cat(slots).to(self._device),
            cos,
            sin,
        )
        hidden = self.decoder.last_hidden_states(
            torch.tensor(ids, device=self._device),
            metadata,
            self.cache.layers,
            torch.tensor(logit_rows + hidden_rows, dtype=torch.long, device=self._device),
            self._step_adapters(chunks),
        )
        logits = self.decoder.head(hidden[: len(logit_rows)])
        return StepOutput(logits.cpu(), hidden[len(logit_rows) :].cpu())

    def open_adapter(self, digest: str, folder: Path, thread: EngineThread) -> DecoderAdapter:
        """See `ModelRunner`: read in pieces between two steps."""
        host = DecoderHost(
            base=self._base.folder,
            decoder=self.decoder,
            layout=self._layout,
            device=self._device,
            native=self.native is not None,
            cache=self.cache,
            cache_manager=self.cache_manager,
            thread=thread,
        )
        return kind_in(folder).open_adapter(digest, folder, host)

    def _step_adapters(self, chunks: list[ScheduledChunk]) -> StepAdapters | None:
        """The low-rank updates of each row; None where no row has any."""
        if all(chunk.sequence.adapter is None for chunk in chunks):
            return None
        rows: list[LoraMatrices | None] = []
        for chunk in chunks:
            adapter = cast(DecoderAdapter | None, chunk.sequence.adapter)
            rows += [None if adapter is None else adapter.matrices] * chunk.tokens
        return StepAdapters(rows, self.native) if any(rows) else None


def _unnumbered_tokens(sequence: Sequence) -> int:
    """The number of a sequence's virtual tokens that take no positions."""
    adapter = cast(DecoderAdapter | None, sequence.adapter)
    return 0 if adapter is None else adapter.virtual_tokens - adapter.virtual_positions


class FastEngine(ServingEngine[DecoderRunner]):
    """Continuous batching over our own decoder."""

    def __init__(
        self,
        base: BaseModel,
        *,
        renderer: ChatRenderer | None = None,
        kernel_cache: Path,
        quantization: Quantization = "none",
        dtype: torch.dtype | None = None,
        max_rows: int = 32,
        max_queue: int = 256,
        kv_cache_bytes: int | None = None,
        prefix_cache: bool = True,
    ) -> None:
        """`renderer`: the checkpoint's, if it is loaded already; `kernel_cache`: the folder of
        compiled kernels; `kv_cache_bytes`: the budget for keys and values, a part of the free
        memory if None is given.

        Raises `ModelUnavailable` for a model that this engine does not cover.
        """
        renderer = renderer or load_renderer(base.folder)
        runner = DecoderRunner(
            base,
            kernel_cache=kernel_cache,
            quantization=quantization,
            dtype=dtype,
            kv_cache_bytes=kv_cache_bytes,
            prefix_cache=prefix_cache,
        )
        super().__init__(base, renderer, runner, max_rows=max_rows, max_queue=max_queue)

    @property
    def kernels_reason(self) -> str:
        """The kernels that were selected, and why."""
        return self.runner.kernels_reason

    @property
    def weight_bytes(self) -> int:
        """Bytes of the decoder's matrices."""
        return self.runner.decoder.weight_bytes


def _make_cache(
    config: DecoderConfig, dtype: torch.dtype, device: str, *, budget: int | None, share: bool
) -> PagedCache:
    """A cache of as many pages as the budget in bytes holds.

    Without a budget, those that no sequence uses keep a whole context at least.
    """
    each = page_bytes(config.layer_count, config.heads, dtype)
    most_idle_pages = None
    if budget is None:
        budget = min(MAX_CACHE_BYTES, int(CACHE_SHARE * psutil.virtual_memory().available))
        most_idle_pages = max(pages_for(config.context_tokens), MAX_IDLE_CACHE_BYTES // each)
    page_count = budget // each
    if page_count < 1:
        raise ModelUnavailable(
            f"{budget} bytes for keys and values hold not even {PAGE_TOKENS} "
            f"tokens, which take {each}"
        )
    return PagedCache(
        config.layer_count,
        config.heads,
        page_count=page_count,
        dtype=dtype,
        device=device,
        share=share and not config.prefix_lm,
        most_idle_pages=most_idle_pages,
    )


def _page_table(tables: list[list[int]]) -> Tensor:
    """(sequences, most pages) int32, padded with pages that are never read."""
    most = max(map(len, tables))
    return torch.tensor([[*own, *[0] * (most - len(own))] for own in tables], dtype=torch.int32)
