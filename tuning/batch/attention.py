"""Attention within segments: no token sees another row, and nothing is computed to be masked away.

Registered with transformers as an attention implementation, so any architecture that looks its
attention up there can use it. A call without segments is transformers' own `sdpa`. Knows segments;
knows no batches and no trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "burnish_segments"
Bounds = tuple[int, int, int, int]  # of a `tuning.batch.plan.Segment`


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
    outputs = []
    for prompt_start, prompt_end, start, end in segments:
        q = query[:, :, start:end]
        prompt = prompt_end - prompt_start
        k, v = (_rows(x, prompt_start, prompt_end, start, end) for x in (key, value))
        outputs.append(
            scaled_dot_product_attention(
                q, k, v,
                attn_mask=_below(end - start, prompt, q) if prompt else None,
                is_causal=not prompt,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )  # fmt: skip
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _rows(x: Tensor, prompt_start: int, prompt_end: int, start: int, end: int) -> Tensor:
    own = x[:, :, start:end]
    return (
        torch.cat([x[:, :, prompt_start:prompt_end], own], 2) if prompt_end > prompt_start else own
    )


def _below(tokens: int, prompt: int, like: Tensor) -> Tensor:
    """Additive mask (tokens, prompt + tokens): all of the prompt, and one's own past."""
    hidden = torch.full((tokens, prompt + tokens), -torch.inf, dtype=like.dtype, device=like.device)
    return hidden.triu(prompt + 1)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
