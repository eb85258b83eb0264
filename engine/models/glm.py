"""The family of GLM-4 in the layout of transformers (`glm`, `glm4`).

It is LLaMA with neighbouring rotary pairs on the first half of each head, biases on queries, keys
and values, and gate and up in one tensor; `glm4` has a norm after each part, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.kernels.interface import Heads
from engine.models.architecture import (
    Architecture,
    CausalPositions,
    head_rows,
    interleaved_to_halves,
    require,
)
from engine.models.decoder import CheckpointLayout, DecoderConfig, LayerSpec, LinearSpec

MODEL_TYPES = frozenset({"glm", "glm4"})


def architecture(folder: Path) -> Architecture:
    """See `Family`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    require(config.to_dict(), unlike={"hidden_act": "silu", "quantization_config": None})
    rope = config.rope_parameters
    require(rope, unlike={"rope_type": "default"})
    dim = config.head_dim or config.hidden_size // config.num_attention_heads
    rotated = int(dim * rope.get("partial_rotary_factor", 1.0))
    heads = Heads(config.num_attention_heads, config.num_key_value_heads, dim, rotated)
    theta = float(rope["rope_theta"])
    decoder = DecoderConfig(
        hidden_size=config.hidden_size,
        layer_count=config.num_hidden_layers,
        heads=heads,
        vocabulary=config.vocab_size,
        context_tokens=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        rotary_frequencies=tuple(theta ** (-2 * i / rotated) for i in range(rotated // 2)),
        block="sandwich_norm" if config.model_type == "glm4" else "pre_norm",
    )
    layers = tuple(
        _layer(f"model.layers.{n}", config, heads) for n in range(config.num_hidden_layers)
    )
    layout = CheckpointLayout(
        "model.embed_tokens", layers, "model.norm", "lm_head", config.tie_word_embeddings
    )
    return Architecture(decoder, layout, CausalPositions())


def _layer(prefix: str, config: Any, heads: Heads) -> LayerSpec:
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
    order = interleaved_to_halves(heads.dim, heads.rotated)
    sandwich = config.model_type == "glm4"
    hidden, inner = config.hidden_size, config.intermediate_size
    query, kv = heads.query * heads.dim, heads.kv * heads.dim
    return LayerSpec(
        qkv=(
            LinearSpec(
                f"{attention}.q_proj", query, hidden, head_rows(order, heads.query, heads.dim)
            ),
            LinearSpec(f"{attention}.k_proj", kv, hidden, head_rows(order, heads.kv, heads.dim)),
            LinearSpec(f"{attention}.v_proj", kv, hidden),
        ),
        out=LinearSpec(f"{attention}.o_proj", hidden, query),
        up=(LinearSpec(f"{mlp}.gate_up_proj", 2 * inner, hidden),),
        down=LinearSpec(f"{mlp}.down_proj", hidden, inner),
        input_norm=f"{prefix}.input_layernorm",
        mlp_norm=f"{prefix}.post_attention_layernorm",
        after_attention_norm=f"{prefix}.post_self_attn_layernorm" if sandwich else None,
        after_mlp_norm=f"{prefix}.post_mlp_layernorm" if sandwich else None,
    )
