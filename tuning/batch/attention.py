"""Attention within segments: no token sees another row, and no masked score is computed.

Registered with transformers as an attention implementation, so any architecture that looks its
attention up there can use it. A call without segments is transformers' own `sdpa`. Knows segments;
knows no batches and no trainers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tuning.kernels.portable import Bounds, TuningKernels, each_segment

ATTENTION_NAME = "burnish_segments"


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a pack, whose bounds cover all tokens in order, and the kernels to use."""

    bounds: tuple[Bounds, ...]
    kernels: TuningKernels


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed batch.

    query: (1, heads, tokens, head size); key, value: (1, key heads, tokens, head size); returns
    (1, tokens, heads, head size). With segments, no mask is read.
    """
    if segments is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    if query.device.type == "cpu" and not dropout:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        rows = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        output: Tensor = _Attention.apply(*rows, segments, scale)  # type: ignore[no-untyped-call]
        return output[None], None
    outputs = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for q, k, v, mask in each_segment(query, key, value, segments.bounds)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


class _Attention(torch.autograd.Function):
    """Shapes as those of `TuningKernels.attend`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Any:
        result, log_sums = segments.kernels.attend(q, k, v, segments.bounds, scale)
        ctx.save_for_backward(q, k, v, result, log_sums)
        ctx.segments, ctx.scale = segments, scale
        return result

    @staticmethod
    def backward(ctx: Any, of_result: Tensor) -> tuple[Tensor | None, ...]:
        segments: Segments = ctx.segments
        q, k, v, result, log_sums = ctx.saved_tensors
        dq, dk, dv = segments.kernels.attend_backward(
            of_result, q, k, v, result, log_sums, segments.bounds, ctx.scale
        )
        return dq, dk, dv, None, None


AttentionInterface.register(ATTENTION_NAME, attend)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
