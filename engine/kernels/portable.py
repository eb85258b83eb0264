"""What each kernel computes, in plain torch, for any device. The compiled kernels equal this.

Shapes: T tokens of one step, of several sequences, lie one after the other (`AttentionMetadata`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

PAGE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Heads:
    """The shape of attention."""

    query: int
    kv: int
    dim: int
    rotated: int  # leading channels of a head that turn with the position
    window: int = 0  # tokens a query looks back on, itself included; 0 is all of them

    @property
    def width(self) -> int:
        """Channels of query, key and value side by side."""
        return (self.query + 2 * self.kv) * self.dim


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """Where the T tokens of a step belong.

    sequences  # (n, 4) int64: first token in the step, tokens, tokens cached before, prefix
    pages      # (n, most pages) int32: the pages of each sequence, in order
    slots      # (T,) int64: page * PAGE_TOKENS + offset, where a token's key and value go

    Tokens below `prefix` see each other both ways (a prefix language model); 0 is causal.
    """

    sequences: Tensor
    pages: Tensor
    slots: Tensor
    cos: Tensor  # (T, rotated / 2)
    sin: Tensor  # (T, rotated / 2)


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's pages."""

    keys: Tensor  # (pages, kv heads, dim, PAGE_TOKENS)
    values: Tensor  # (pages, kv heads, PAGE_TOKENS, dim)


class Kernels(Protocol):
    """The operations. Inputs and results are float32 and contiguous."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Zhang & Sennrich 2019; x (T, n), weight (n,)."""
        ...

    def gated_silu(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up (Shazeer 2020); gate_up (T, 2 n) -> (T, n)."""
        ...

    def rotate_and_store(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> None:
        """Turn queries and keys by their positions, in place, and put keys and values into the
        cache. qkv (T, heads.width). Channel i is paired with i + rotated / 2."""
        ...

    def attention(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> Tensor:
        """Softmax attention of each query over its sequence's cache; (T, query * dim)."""
        ...


class PortableKernels:
    """The definition."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Kernels`."""
        return F.rms_norm(x, weight.shape, weight, eps)

    def gated_silu(self, gate_up: Tensor) -> Tensor:
        """See `Kernels`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def rotate_and_store(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> None:
        """See `Kernels`."""
        rows = qkv.view(len(qkv), -1, heads.dim)
        turning = rows[:, : heads.query + heads.kv, : heads.rotated]
        first, second = turning.chunk(2, dim=-1)
        cos, sin = metadata.cos[:, None], metadata.sin[:, None]
        turning.copy_(torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1))
        page, offset = metadata.slots // PAGE_TOKENS, metadata.slots % PAGE_TOKENS
        keys, values = rows[:, heads.query :].to(cache.keys.dtype).chunk(2, dim=1)
        cache.keys[page, :, :, offset] = keys
        cache.values[page, :, offset] = values

    def attention(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> Tensor:
        """See `Kernels`."""
        queries = qkv.view(len(qkv), -1, heads.dim)[:, : heads.query]
        out = torch.empty_like(queries)
        for (first, count, past, prefix), pages in zip(
            metadata.sequences.tolist(), metadata.pages, strict=True
        ):
            end = max(past + count, prefix)
            used = pages[: -(-end // PAGE_TOKENS)].long()
            keys = cache.keys[used].permute(1, 0, 3, 2).flatten(1, 2)[:, :end]
            values = cache.values[used].permute(1, 0, 2, 3).flatten(1, 2)[:, :end]
            mask = _mask(past, count, end, prefix, heads.window, qkv.device)
            mine = slice(first, first + count)
            out[mine] = F.scaled_dot_product_attention(
                queries[mine].transpose(0, 1)[None],
                keys[None].to(qkv.dtype),
                values[None].to(qkv.dtype),
                attn_mask=mask,
                enable_gqa=heads.query != heads.kv,
            )[0].transpose(0, 1)
        return out.flatten(1)


def _mask(
    past: int, count: int, end: int, prefix: int, window: int, device: torch.device
) -> Tensor:
    """What each of `count` queries sees of `end` tokens; (count, end), true where it looks."""
    query = torch.arange(past, past + count, device=device)[:, None]
    key = torch.arange(end, device=device)[None]
    seen = (key <= query) | (key < prefix)
    return seen & (key > query - window) if window else seen
