"""Attention within segments: no token sees another row, and nothing is computed to be masked away.

Registered with transformers as an attention implementation, so any architecture that looks its
attention up there can use it. A call without segments is transformers' own `sdpa`. Knows segments;
knows no batches and no trainers.

On a processor torch's flash attention is fast forwards, but its backward pass takes three to six
times as long, in bf16 above all. The same gradient (Dao et al. 2022, alg. 4) is made of matrix
products here, some query rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "burnish_segments"
Bounds = tuple[int, int, int, int]  # of a `tuning.batch.plan.Segment`
# What `scaled_dot_product_attention` calls on a processor; this one tells the sums of exponentials
flash_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
TILE_ROWS = 64  # query rows whose scores are made at once: fewest wasted above the diagonal


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Sequence[Bounds] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed batch.

    query: (1, heads, tokens, head size); key, value: (1, key heads, tokens, head size); returns
    (1, tokens, heads, head size). Segments cover all tokens in order; with them, no mask is read.
    """
    if segments is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    if query.device.type == "cpu" and not dropout:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        output: Tensor = _Attention.apply(query, key, value, segments, scale)  # type: ignore[no-untyped-call]
        return output.transpose(1, 2), None
    outputs = [
        scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for q, k, v, mask in _each(query, key, value, segments)
    ]  # fmt: skip
    return torch.cat(outputs, dim=2).transpose(1, 2), None


class _Attention(torch.autograd.Function):
    """Shapes as in `attend`, the result (1, heads, tokens, head size); gradients in float32."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Bounds],
        scale: float,
    ) -> Tensor:  # fmt: skip
        found = [
            flash_attention(q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale)
            for q, k, v, mask in _each(query, key, value, segments)
        ]
        output, log_sums = (torch.cat(parts, dim=2) for parts in zip(*found, strict=True))
        ctx.save_for_backward(query, key, value, output, log_sums)
        ctx.segments, ctx.scale = segments, scale
        return output

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, log_sums = ctx.saved_tensors
        groups = key.shape[1], query.shape[1] // key.shape[1]  # query heads share a key head
        q, do, o = (x[0].float().unflatten(0, groups) for x in (query, of_output, output))
        q = q * ctx.scale
        k, v = (x[0].float() for x in (key, value))
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        log_sums = log_sums[0].unflatten(0, groups)[..., None]
        along = (do * o).sum(-1, keepdim=True)
        for prompt_start, prompt_end, start, end in ctx.segments:
            prompt, seen = prompt_end - prompt_start, end - start
            places = torch.cat([torch.arange(prompt_start, prompt_end), torch.arange(start, end)])
            ks, vs = (x[:, places] for x in (k, v))
            dks, dvs = torch.zeros_like(ks), torch.zeros_like(vs)
            for first in range(0, seen, TILE_ROWS):
                last = min(first + TILE_ROWS, seen)
                rows, keys = slice(start + first, start + last), slice(0, prompt + last)
                qt, dot = (x[:, :, rows].flatten(1, 2) for x in (q, do))
                p = (qt @ ks[:, keys].mT).unflatten(1, (groups[1], -1))
                p.sub_(log_sums[:, :, rows]).exp_()
                p[..., prompt + first :].tril_()
                ds = (dot @ vs[:, keys].mT).view_as(p).sub_(along[:, :, rows]).mul_(p)
                p, ds = p.flatten(1, 2), ds.flatten(1, 2)
                dvs[:, keys].baddbmm_(p.mT, dot)
                dks[:, keys].baddbmm_(ds.mT, qt)
                dq[:, :, rows] = (ds @ ks[:, keys]).unflatten(1, (groups[1], -1))
            dk.index_add_(1, places, dks)
            dv.index_add_(1, places, dvs)
        dq = dq.mul_(ctx.scale).flatten(0, 1)
        of_inputs = (x[None].to(query.dtype) for x in (dq, dk, dv))
        return *of_inputs, None, None


def _each(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Bounds]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Of each segment: its queries, the keys and values they may see, and a mask (None: causal)."""
    for prompt_start, prompt_end, start, end in segments:
        q, k, v = (x[:, :, start:end] for x in (query, key, value))
        if prompt := prompt_end - prompt_start:
            k, v = (
                torch.cat([x[:, :, prompt_start:prompt_end], own], dim=2)
                for x, own in ((key, k), (value, v))
            )
        yield q, k, v, _below(end - start, prompt, q) if prompt else None


def _below(tokens: int, prompt: int, like: Tensor) -> Tensor:
    """Additive mask (tokens, prompt + tokens): all of the prompt, and one's own past."""
    hidden = torch.full((tokens, prompt + tokens), -torch.inf, dtype=like.dtype, device=like.device)
    return hidden.triu(prompt + 1)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
