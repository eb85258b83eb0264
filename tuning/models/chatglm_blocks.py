"""The layers of ChatGLM in its published layout, with the names of the published tensors.

`First...` is ChatGLM-6B, the first generation; the others are ChatGLM2, ChatGLM3 and GLM-4, one
network. Knows one block and what it sees; the whole model is `chatglm.py`'s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuning.models.chatglm_config import ChatGLMConfig


class RMSNorm(nn.Module):
    """Zhang & Sennrich 2019; the mean of squares is taken in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add(self.variance_epsilon).rsqrt()
        return self.weight * (wide * scale).to(x.dtype)


class Attention(nn.Module):
    """Attention of ChatGLM2, ChatGLM3 and GLM-4: queries, keys and values lie one after the other,
    neighbouring channels of the first half of each head turn together."""

    is_causal = False  # the mask, or the segments of a pack, say what is seen
    biased_dense = False

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        spec, heads = config.architecture.layout.layers[layer], config.architecture.config.heads
        (qkv,), out = spec.qkv, spec.out
        biased_qkv = self.biased_dense or bool(getattr(config, "add_qkv_bias", False))
        self.query_key_value = nn.Linear(qkv.in_features, qkv.out_features, bias=biased_qkv)
        self.dense = nn.Linear(out.in_features, out.out_features, bias=self.biased_dense)
        self.config, self.layer, self.heads = config, layer, heads
        self.num_key_value_groups = heads.query // heads.kv

    def forward(
        self,
        hidden: Tensor,
        *,
        angles: tuple[Tensor, Tensor],
        attention_mask: Tensor,
        past_key_values: DynamicCache | None,
        **segments: Any,
    ) -> Tensor:
        """hidden (batch, tokens, width) to the same; a cache is filled."""
        query, key, value = (x.transpose(1, 2) for x in self.split(self.query_key_value(hidden)))
        query, key = self.rotate(query, *angles), self.rotate(key, *angles)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, sdpa_attention_forward
        )
        scale = self.heads.dim**-0.5
        seen, _ = attend(self, query, key, value, attention_mask, scaling=scale, **segments)
        return self.dense(seen.flatten(2))  # type: ignore[no-any-return]

    def split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values (batch, tokens, heads, dim)."""
        rows = qkv.reshape(*qkv.shape[:-1], -1, self.heads.dim)
        return rows.split_with_sizes([self.heads.query, self.heads.kv, self.heads.kv], dim=2)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (batch, heads, tokens, dim) by angles (batch, 1, tokens, rotated / 2)."""
        turned, rest = x[..., : self.heads.rotated], x[..., self.heads.rotated :]
        even, odd = turned[..., ::2], turned[..., 1::2]
        pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
        return torch.cat([pairs.flatten(-2), rest], dim=-1)


class FirstAttention(Attention):
    """Attention of ChatGLM-6B: each head's query, key and value lie together, each half of a head
    turns by a position channel of its own, its halves together."""

    biased_dense = True

    def split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """See `Attention`."""
        return qkv.reshape(*qkv.shape[:-1], self.heads.query, 3, self.heads.dim).unbind(3)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """See `Attention`."""
        x, cos, sin = (each.reshape(*each.shape[:-1], 2, -1) for each in (x, cos, sin))
        low, high = x.chunk(2, dim=-1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).flatten(-2)


class GatedMLP(nn.Module):
    """The feed-forward block of ChatGLM2, ChatGLM3 and GLM-4: SwiGLU, gate and up in one matrix."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.dense_h_to_4h = nn.Linear(width, 2 * inner, bias=False)
        self.dense_4h_to_h = nn.Linear(inner, width, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        gate, up = self.dense_h_to_4h(x).chunk(2, dim=-1)
        return self.dense_4h_to_h(self.act_fn(gate) * up)  # type: ignore[no-any-return]


class FirstMLP(nn.Module):
    """The feed-forward block of ChatGLM-6B: GELU by its tanh approximation."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.dense_h_to_4h = nn.Linear(width, inner)
        self.dense_4h_to_h = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        inner = gelu(self.dense_h_to_4h(x), approximate="tanh")
        return self.dense_4h_to_h(inner)  # type: ignore[no-any-return]


class Block(GradientCheckpointingLayer):  # type: ignore[misc]
    """h + f(norm(h)), for attention and for the feed-forward block."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layernorm_epsilon
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attention = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = GatedMLP(config)

    def forward(self, hidden: Tensor, **seen: Any) -> Tensor:
        """hidden (batch, tokens, width) to the same; `seen` is for `Attention`."""
        hidden = hidden + self.self_attention(self.input_layernorm(hidden), **seen)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))  # type: ignore[no-any-return]


class FirstBlock(GradientCheckpointingLayer):  # type: ignore[misc]
    """a = norm(h), then alpha a + f(a), for attention and for the feed-forward block."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layernorm_epsilon
        self.input_layernorm = nn.LayerNorm(width, eps)
        self.attention = FirstAttention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(width, eps)
        self.mlp = FirstMLP(config)
        self.residual_scale = config.architecture.config.residual_scale

    def forward(self, hidden: Tensor, **seen: Any) -> Tensor:
        """See `Block`."""
        normed = self.input_layernorm(hidden)
        hidden = self.residual_scale * normed + self.attention(normed, **seen)
        normed = self.post_attention_layernorm(hidden)
        return self.residual_scale * normed + self.mlp(normed)  # type: ignore[no-any-return]
