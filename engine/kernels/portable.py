"""The definition of each kernel, in plain torch, for any device; the compiled kernels equal it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import PAGE_TOKENS, AttentionMetadata, Heads, LayerCache


class PortableKernels:
    """Implements `Kernels` in torch."""

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
    """The attention mask (count, end) of queries past..past + count: true where one attends."""
    query = torch.arange(past, past + count, device=device)[:, None]
    key = torch.arange(end, device=device)[None]
    seen = (key <= query) | (key < prefix)
    return seen & (key > query - window) if window else seen
