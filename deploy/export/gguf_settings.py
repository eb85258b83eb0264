"""The settings of a model as GGUF metadata, as llama.cpp reads them.

This is `engine.models.gguf_metadata` the other way round: `config.json` to keys. What a key cannot
say is refused by name, so that no file computes something else in silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, RopeScalingType

from deploy.export.gguf_tensors import F32, GgufTensor
from engine.config_file import read_config
from engine.errors import InvalidInput, ModelUnavailable
from engine.models.architecture import Architecture
from engine.models.families import architecture_of
from engine.models.gguf import INTERLEAVED

# `general.architecture` by `model_type`
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ROPE_FREQS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The settings of a checkpoint that its GGUF file is written from."""

    architecture: str
    decoder: Architecture
    config: Any  # transformers' configuration

    def heads(self, part: str) -> int | None:
        """The heads by which a part's rows are interleaved; None where they are not."""
        if not INTERLEAVED[self.architecture]:
            return None
        counts = self.decoder.config.heads
        return {"attn_q": counts.query, "attn_k": counts.kv}.get(part.rpartition(".")[2])


def unsupported(folder: Path) -> str | None:
    """The reason why the checkpoint in `folder` cannot be a GGUF file; None if it can."""
    kind = read_config(folder).get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return f"the base model's type is {kind!r}, and GGUF files are written of {known}"
    try:
        gguf_model_of(folder)
    except (ModelUnavailable, InvalidInput) as error:
        return str(error)
    return None


def gguf_model_of(folder: Path) -> GgufModel:
    """Read the settings of a checkpoint; raises `ModelUnavailable` or `InvalidInput`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    found = GgufModel(ARCHITECTURES[config.model_type], architecture_of(folder), config)
    if found.decoder.config.heads.window:
        raise InvalidInput("llama.cpp computes its architecture without a sliding window")
    _rope(found)
    return found


def add_settings(writer: GGUFWriter, model: GgufModel) -> list[GgufTensor]:
    """Add the settings of the architecture; returns the tensors that they need beside."""
    config, decoder = model.config, model.decoder.config
    writer.add_block_count(decoder.layer_count)
    writer.add_context_length(decoder.context_tokens)
    writer.add_embedding_length(decoder.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(decoder.heads.query)
    writer.add_head_count_kv(decoder.heads.kv)
    writer.add_layer_norm_rms_eps(decoder.eps)
    writer.add_vocab_size(decoder.vocabulary)
    writer.add_rope_dimension_count(decoder.heads.dim)
    if decoder.heads.dim * decoder.heads.query != decoder.hidden_size:
        writer.add_key_length(decoder.heads.dim)
        writer.add_value_length(decoder.heads.dim)
    keys, divisors = _rope(model)
    for key, value in keys.items():
        name = f"{model.architecture}.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_float32(name, value)
    if divisors is None:
        return []
    return [GgufTensor(ROPE_FREQS, divisors.shape, F32, lambda: divisors)]


def _rope(model: GgufModel) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
    """The rotary keys, and the divisor of each pair's angle where keys alone cannot say it."""
    rope: Mapping[str, Any] = model.config.rope_parameters
    theta, kind = float(rope["rope_theta"]), rope.get("rope_type", "default")
    keys: dict[str, Any] = {"rope.freq_base": theta}
    if kind == "default":
        return keys, None
    if kind == "linear":
        scaling = {"type": RopeScalingType.LINEAR.value, "factor": float(rope["factor"])}
        return keys | _prefixed(scaling), None
    if kind == "yarn":
        return keys | _prefixed(_yarn(rope, model)), None
    # Llama 3's, and those with factors of their own: the decoder's frequencies say it all
    if model.architecture != "llama":
        raise InvalidInput(f"GGUF files of {model.architecture} have no rope_type {kind!r}")
    decoder = model.decoder.config
    plain = theta ** (-np.arange(0, decoder.heads.rotated, 2) / decoder.heads.rotated)
    divisors = (plain / np.array(decoder.rotary_frequencies)).astype(np.float32)
    if decoder.rotary_scale != 1:
        keys |= _prefixed({"attn_factor": decoder.rotary_scale})
    return keys, divisors


def _yarn(rope: Mapping[str, Any], model: GgufModel) -> dict[str, Any]:
    """The keys of YaRN; llama.cpp multiplies `attn_factor` by the factor of the paper."""
    if rope.get("truncate") is False:
        raise InvalidInput("llama.cpp's YaRN has no truncate = false")
    factor = float(rope["factor"])
    original = rope.get("original_max_position_embeddings") or model.decoder.config.context_tokens
    return {
        "type": RopeScalingType.YARN.value,
        "factor": factor,
        "original_context_length": int(original),
        "attn_factor": model.decoder.config.rotary_scale / (1 + 0.1 * math.log(max(factor, 1))),
        "yarn_beta_fast": float(rope.get("beta_fast") or 32),
        "yarn_beta_slow": float(rope.get("beta_slow") or 1),
    }


def _prefixed(scaling: Mapping[str, Any]) -> dict[str, Any]:
    return {f"rope.scaling.{key}": value for key, value in scaling.items()}
