"""The families of ChatGLM in their published layout (`model_type` chatglm): ChatGLM-6B,
ChatGLM2-6B, ChatGLM3-6B and GLM-4-9b-chat. Their published code is not run.

ChatGLM2, ChatGLM3 and GLM-4 are one network: RMSNorm, SwiGLU, grouped queries, neighbouring rotary
pairs on the first half of each head, fused biased qkv. ChatGLM-6B (Du et al. 2022, GLM) is another:
LayerNorm, GELU, two position channels, a residual taken from the scaled norm, and a prompt that
sees itself both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.config_file import read_config
from engine.errors import InvalidInput, ModelUnavailable
from engine.kernels.interface import Heads
from engine.models.architecture import (
    Architecture,
    CausalPositions,
    head_rows,
    interleaved_to_halves,
    require,
)
from engine.models.decoder import CheckpointLayout, DecoderConfig, LayerSpec, LinearSpec

MODEL_TYPES = frozenset({"chatglm"})
ROTARY_BASE = 10_000.0


def architecture(folder: Path) -> Architecture:
    """See `Family`."""
    try:
        return published_architecture(read_config(folder))
    except KeyError as error:
        raise ModelUnavailable(f"config.json in {folder} lacks {error}") from error


def published_architecture(config: Mapping[str, Any]) -> Architecture:
    """The same from the contents of a config.json; raises `KeyError` for a missing setting."""
    return _first(config) if is_first(config) else _second(config)


def is_first(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is that of ChatGLM-6B, the first generation."""
    return "inner_hidden_size" in config


def _second(config: Mapping[str, Any]) -> Architecture:
    """ChatGLM2, ChatGLM3 and GLM-4-9b-chat."""
    require(
        config,
        unlike={
            "apply_residual_connection_post_layernorm": False,
            "rmsnorm": True,
            "post_layer_norm": True,
            "add_bias_linear": False,
            "original_rope": True,
            "pre_seq_len": None,
            "quantization_bit": 0,
        },
    )
    query, dim = config["num_attention_heads"], config["kv_channels"]
    kv = config["multi_query_group_num"] if config.get("multi_query_attention") else query
    heads = Heads(query, kv, dim, rotated=dim // 2)
    base = ROTARY_BASE * config.get("rope_ratio", 1)
    decoder = DecoderConfig(
        hidden_size=config["hidden_size"],
        layer_count=config["num_layers"],
        heads=heads,
        vocabulary=config["padded_vocab_size"],
        context_tokens=config["seq_length"],
        eps=config["layernorm_epsilon"],
        rotary_frequencies=tuple(
            base ** (-2 * i / heads.rotated) for i in range(heads.rotated // 2)
        ),
        numbers_key_prefix=False,
    )
    order, plain = interleaved_to_halves(dim, heads.rotated), torch.arange(dim)
    qkv = torch.cat(
        [
            head_rows(order, query, dim),
            head_rows(order, kv, dim, first=query * dim),
            head_rows(plain, kv, dim, first=(query + kv) * dim),
        ]
    )
    layers = tuple(
        _layer(
            f"transformer.encoder.layers.{n}",
            "self_attention",
            qkv,
            hidden=config["hidden_size"],
            seen=query * dim,
            up=2 * config["ffn_hidden_size"],
            inner=config["ffn_hidden_size"],
        )
        for n in range(config["num_layers"])
    )
    layout = CheckpointLayout(
        "transformer.embedding.word_embeddings",
        layers,
        "transformer.encoder.final_layernorm",
        "transformer.output_layer",
        config.get("tie_word_embeddings", False),
    )
    return Architecture(decoder, layout, CausalPositions())


def _first(config: Mapping[str, Any]) -> Architecture:
    """ChatGLM-6B."""
    require(
        config, unlike={"position_encoding_2d": True, "pre_seq_len": None, "quantization_bit": 0}
    )
    count = config["num_attention_heads"]
    dim = config["hidden_size"] // count
    heads = Heads(count, count, dim, rotated=dim)
    half = dim // 2
    # The published module keeps its inverse frequencies in half precision
    frequencies = torch.tensor([ROTARY_BASE ** (-2 * i / half) for i in range(half // 2)])
    rounded = tuple(frequencies.half().float().tolist())
    decoder = DecoderConfig(
        hidden_size=config["hidden_size"],
        layer_count=config["num_layers"],
        heads=heads,
        vocabulary=config["vocab_size"],
        context_tokens=config["max_sequence_length"],
        eps=config["layernorm_epsilon"],
        rotary_frequencies=rounded * 2,
        position_channels=2,
        norm="layer",
        activation="gelu",
        block="scaled_norm",
        residual_scale=(2 * config["num_layers"]) ** 0.5,
        prefix_lm=True,
        numbers_key_prefix=False,
    )
    # Each half of a head turns with its own position channel and pairs channel i with i + half / 2;
    # this order makes one rotation of both: pairs (i, i + half)
    quarters = torch.arange(dim).view(2, 2, -1).transpose(0, 1).flatten()
    plain = torch.arange(dim)
    starts = 3 * dim * torch.arange(count)[:, None]  # each head's q, k and v lie together
    qkv = torch.cat(
        [
            (starts + part * dim + order).flatten()
            for part, order in enumerate((quarters, quarters, plain))
        ]
    )
    layers = tuple(
        _layer(
            f"transformer.layers.{n}",
            "attention",
            qkv,
            hidden=config["hidden_size"],
            seen=config["hidden_size"],
            up=config["inner_hidden_size"],
            inner=config["inner_hidden_size"],
        )
        for n in range(config["num_layers"])
    )
    # The published configuration does not say; in transformers that has always meant tied
    tied = config.get("tie_word_embeddings", True)
    layout = CheckpointLayout(
        "transformer.word_embeddings", layers, "transformer.final_layernorm", "lm_head", tied
    )
    positions = PrefixPositions(
        config["bos_token_id"], config["gmask_token_id"], config["mask_token_id"]
    )
    return Architecture(decoder, layout, positions)


def _layer(
    prefix: str, attention: str, qkv: Tensor, *, hidden: int, seen: int, up: int, inner: int
) -> LayerSpec:
    return LayerSpec(
        qkv=(LinearSpec(f"{prefix}.{attention}.query_key_value", len(qkv), hidden, qkv),),
        out=LinearSpec(f"{prefix}.{attention}.dense", hidden, seen),
        up=(LinearSpec(f"{prefix}.mlp.dense_h_to_4h", up, hidden),),
        down=LinearSpec(f"{prefix}.mlp.dense_4h_to_h", hidden, inner),
        input_norm=f"{prefix}.input_layernorm",
        mlp_norm=f"{prefix}.post_attention_layernorm",
    )


@dataclass(frozen=True, slots=True)
class PrefixPositions:
    """ChatGLM-6B's two position channels.

    Before the first bos they are 0, 1, 2, ... and 0; from it on, the place of the mask token and
    1, 2, 3, ... The tokens before bos attend to each other both ways.
    """

    bos_id: int
    gmask_id: int
    mask_id: int

    def prefix(self, prompt_ids: Sequence[int]) -> int:
        """Tokens before the first bos; raises `InvalidInput` without a bos or a mask token."""
        if self.bos_id not in prompt_ids:
            raise InvalidInput("a ChatGLM-6B prompt must hold its bos token")
        if self._mask(prompt_ids) not in prompt_ids:
            raise InvalidInput("a ChatGLM-6B prompt must hold a mask token")
        return list(prompt_ids).index(self.bos_id)

    def __call__(self, prompt_ids: Sequence[int], begin: int, end: int) -> Tensor:
        """(end - begin, 2)."""
        prefix = self.prefix(prompt_ids)
        place = list(prompt_ids).index(self._mask(prompt_ids))
        index = torch.arange(begin, end)
        first = torch.where(index < prefix, index, torch.tensor(place))
        second = (index - prefix + 1).clamp(min=0)
        return torch.stack([first, second], dim=1)

    def _mask(self, prompt_ids: Sequence[int]) -> int:
        return self.gmask_id if self.gmask_id in prompt_ids else self.mask_id
