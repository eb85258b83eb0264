"""The family of LLaMA 1-3, Mistral, Qwen2, Qwen2.5, Qwen3 and SmolLM2.

It has RMSNorm, SwiGLU, rotary halves and grouped queries; Qwen2 has biases on queries, keys and
values, Qwen3 a norm on each head instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.config_file import read_config
from engine.errors import ModelUnavailable
from engine.kernels.interface import Heads
from engine.models.architecture import Architecture, CausalPositions, require
from engine.models.decoder import CheckpointLayout, DecoderConfig, LayerSpec, LinearSpec

MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# With which a config.json of LLaMA leaves no default to transformers
SETTINGS: dict[str, type] = {
    "hidden_size": int,
    "intermediate_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "num_key_value_heads": int,
    "head_dim": int,
    "vocab_size": int,
    "max_position_embeddings": int,
    "rms_norm_eps": float,
    "tie_word_embeddings": bool,
    "hidden_act": str,
    "rope_parameters": dict,
}
ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")


def architecture(folder: Path) -> Architecture:
    """See `Family`."""
    config, values = _configuration(folder)
    require(values, unlike={"mlp_bias": False, "hidden_act": "silu", "quantization_config": None})
    heads = _heads(config)
    frequencies, scale = rotary(config, heads.rotated)
    decoder = DecoderConfig(
        hidden_size=config.hidden_size,
        layer_count=config.num_hidden_layers,
        heads=heads,
        vocabulary=config.vocab_size,
        context_tokens=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        rotary_frequencies=frequencies,
        rotary_scale=scale,
    )
    names = [_layer(f"model.layers.{n}", config, heads) for n in range(config.num_hidden_layers)]
    layout = CheckpointLayout(
        "model.embed_tokens", tuple(names), "model.norm", "lm_head", config.tie_word_embeddings
    )
    return Architecture(decoder, layout, CausalPositions())


def _configuration(folder: Path) -> tuple[Any, Mapping[str, Any]]:
    """The configuration as transformers reads it, with its defaults, and its values by name.

    A config.json of LLaMA that gives all of them, as those that transformers writes do, is read
    without transformers, whose import takes a second.
    """
    read = read_config(folder)
    given = all(type(read.get(name)) is kind for name, kind in SETTINGS.items())
    if given and read["model_type"] == "llama" and _is_plain(read["rope_parameters"]):
        return SimpleNamespace(**read), read
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    return config, config.to_dict()


def _is_plain(rope: Mapping[str, Any]) -> bool:
    """Return whether rotary parameters are a base alone."""
    return rope.keys() == {"rope_type", "rope_theta"} and rope["rope_type"] == "default"


def rotary(config: Any, rotated: int) -> tuple[tuple[float, ...], float]:
    """Rotary frequencies and the factor on cosine and sine, by transformers' own formulas."""
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise ModelUnavailable(f"the fast engine does not cover rope_type {kind!r}")
    if kind == "longrope" and rope["short_factor"] != rope["long_factor"]:
        raise ModelUnavailable(
            f"the fast engine does not cover rope_type {kind!r} with factors that change"
        )
    if kind == "default":
        base = float(rope["rope_theta"])
        return tuple(base ** (-2 * i / rotated) for i in range(rotated // 2)), 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    return tuple(frequencies.tolist()), float(scale)


def _heads(config: Any) -> Heads:
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Mistral's window applies to every layer; Qwen's to the layers that use_sliding_window selects
    window = getattr(config, "sliding_window", None) or 0
    if window and "full_attention" in (getattr(config, "layer_types", None) or ()):
        if "sliding_attention" in config.layer_types:
            raise ModelUnavailable("the fast engine does not cover windows on some layers only")
        window = 0
    return Heads(
        config.num_attention_heads, config.num_key_value_heads, dim, rotated=dim, window=window
    )


def _layer(prefix: str, config: Any, heads: Heads) -> LayerSpec:
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
    hidden, inner = config.hidden_size, config.intermediate_size
    query, kv = heads.query * heads.dim, heads.kv * heads.dim
    normed = config.model_type == "qwen3"
    return LayerSpec(
        qkv=(
            LinearSpec(f"{attention}.q_proj", query, hidden),
            LinearSpec(f"{attention}.k_proj", kv, hidden),
            LinearSpec(f"{attention}.v_proj", kv, hidden),
        ),
        out=LinearSpec(f"{attention}.o_proj", hidden, query),
        up=(
            LinearSpec(f"{mlp}.gate_proj", inner, hidden),
            LinearSpec(f"{mlp}.up_proj", inner, hidden),
        ),
        down=LinearSpec(f"{mlp}.down_proj", hidden, inner),
        input_norm=f"{prefix}.input_layernorm",
        mlp_norm=f"{prefix}.post_attention_layernorm",
        query_norm=f"{attention}.q_norm" if normed else None,
        key_norm=f"{attention}.k_norm" if normed else None,
    )
