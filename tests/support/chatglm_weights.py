"""Random weights in the ChatGLM family's published layout, and what they compute, told otherwise.

ChatGLM2's network is that of transformers' GLM under other names. ChatGLM-6B's is written out here
from its definition, in float64, one text at a time and without a cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import GlmConfig, GlmForCausalLM, PreTrainedModel

from tests.support.decoders import random_ids, randomize

MASK, GMASK, BOS = 100, 101, 104  # ChatGLM-6B's special ids here
CHATGLM2_SIZES: dict[str, dict[str, Any]] = {
    "one group": {"groups": 1},
    "no multi-query": {"groups": None, "heads": 3, "channels": 8, "hidden": 40},
    "wide heads, another eps": {"channels": 24, "eps": 1e-3},
    "eight heads of two groups": {"heads": 8, "channels": 32, "eps": 1.5625e-07, "inner": 56},
    "long context": {"rope_ratio": 50},
    "no bias, tied": {"bias": False, "tied": True},
}
CHATGLM1_SIZES: dict[str, dict[str, Any]] = {
    "three heads": {"heads": 3, "hidden": 48, "inner": 104, "layers": 2, "eps": 1e-3},
    "wide heads": {"heads": 2, "hidden": 64, "inner": 256, "layers": 4, "eps": 1e-5},
    "heads of 24": {"heads": 4, "hidden": 96, "inner": 96, "layers": 1, "eps": 1e-6},
}
WORDS = random_ids(60, seed=5, vocabulary=100)  # none of the special ones
PROMPTS = {
    "a question": [*WORDS[:40], GMASK, BOS],
    "nothing": [GMASK, BOS],
    "a gap": [*WORDS[:5], MASK, *WORDS[5:12], BOS],
    "both masks": [*WORDS[:3], MASK, *WORDS[3:9], GMASK, *WORDS[9:11], BOS],
    "an answer begun": [*WORDS[:33], GMASK, BOS, *WORDS[33:52]],
}


def write_chatglm2_weights(
    folder: Path,
    *,
    heads: int = 4,
    groups: int | None = 2,
    channels: int = 16,
    hidden: int = 64,
    inner: int = 120,
    eps: float = 1e-5,
    rope_ratio: float = 1,
    bias: bool = True,
    tied: bool = False,
    vocabulary: int = 160,
    seed: int = 0,
) -> PreTrainedModel:
    """A ChatGLM2 of random weights; returns the same network in transformers' form.

    `groups`: heads of keys and values; None is one for each query (no multi-query attention).
    """
    layers = 2
    peer = GlmForCausalLM(
        GlmConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=groups or heads,
            head_dim=channels,
            rms_norm_eps=eps,
            attention_bias=bias,
            tie_word_embeddings=tied,
            pad_token_id=0,
            max_position_embeddings=512,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10_000.0 * rope_ratio,
                "partial_rotary_factor": 0.5,
            },
        )
    ).eval()
    randomize(peer, seed)
    config = {
        "model_type": "chatglm",
        "hidden_size": hidden,
        "num_layers": layers,
        "num_attention_heads": heads,
        "kv_channels": channels,
        "ffn_hidden_size": inner,
        "multi_query_attention": groups is not None,
        "multi_query_group_num": groups or 1,
        "padded_vocab_size": vocabulary,
        "layernorm_epsilon": eps,
        "seq_length": 512,
        "add_qkv_bias": bias,
        "add_bias_linear": False,
        "rmsnorm": True,
        "post_layer_norm": True,
        "original_rope": True,
        "rope_ratio": rope_ratio,
        "tie_word_embeddings": tied,
        "apply_residual_connection_post_layernorm": False,
    }
    _save(folder, config, dict(_chatglm2_names(peer.state_dict(), layers, bias, tied)))
    return peer


def _chatglm2_names(state: Mapping[str, Tensor], layers: int, bias: bool, tied: bool) -> Any:
    yield "transformer.embedding.word_embeddings.weight", state["model.embed_tokens.weight"]
    yield "transformer.encoder.final_layernorm.weight", state["model.norm.weight"]
    if not tied:
        yield "transformer.output_layer.weight", state["lm_head.weight"]
    for n in range(layers):
        mine, theirs = f"transformer.encoder.layers.{n}", f"model.layers.{n}"
        for kind in ("weight", "bias") if bias else ("weight",):
            parts = [state[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            yield f"{mine}.self_attention.query_key_value.{kind}", torch.cat(parts)
        for name, other in (
            ("self_attention.dense", "self_attn.o_proj"),
            ("mlp.dense_h_to_4h", "mlp.gate_up_proj"),
            ("mlp.dense_4h_to_h", "mlp.down_proj"),
            ("input_layernorm", "input_layernorm"),
            ("post_attention_layernorm", "post_attention_layernorm"),
        ):
            yield f"{mine}.{name}.weight", state[f"{theirs}.{other}.weight"]


def write_chatglm1_weights(
    folder: Path,
    *,
    heads: int,
    hidden: int,
    inner: int,
    layers: int,
    eps: float,
    vocabulary: int = 160,
    seed: int = 0,
    **special_ids: int,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A ChatGLM-6B of random weights; returns its configuration and tensors."""
    generator = torch.Generator().manual_seed(seed)
    config = {
        "model_type": "chatglm",
        "hidden_size": hidden,
        "inner_hidden_size": inner,
        "num_layers": layers,
        "num_attention_heads": heads,
        "layernorm_epsilon": eps,
        "vocab_size": vocabulary,
        "max_sequence_length": 512,
        "position_encoding_2d": True,
        "bos_token_id": BOS,
        "eos_token_id": BOS + 1,
        "mask_token_id": MASK,
        "gmask_token_id": GMASK,
        "pad_token_id": 3,
        "tie_word_embeddings": False,
        **special_ids,
    }
    tensors: dict[str, Tensor] = {}

    def add(name: str, out: int, inputs: int | None = None, *, bias: bool = True) -> None:
        shape = (out,) if inputs is None else (out, inputs)
        weight = torch.randn(shape, generator=generator)
        tensors[f"{name}.weight"] = 1 + 0.3 * weight if inputs is None else 0.15 * weight
        if bias:
            tensors[f"{name}.bias"] = 0.3 * torch.randn(out, generator=generator)

    add("transformer.word_embeddings", vocabulary, hidden, bias=False)
    for n in range(layers):
        add(f"transformer.layers.{n}.input_layernorm", hidden)
        add(f"transformer.layers.{n}.attention.query_key_value", 3 * hidden, hidden)
        add(f"transformer.layers.{n}.attention.dense", hidden, hidden)
        add(f"transformer.layers.{n}.post_attention_layernorm", hidden)
        add(f"transformer.layers.{n}.mlp.dense_h_to_4h", inner, hidden)
        add(f"transformer.layers.{n}.mlp.dense_4h_to_h", hidden, inner)
    add("transformer.final_layernorm", hidden)
    add("lm_head", vocabulary, hidden, bias=False)
    _save(folder, config, tensors)
    return config, tensors


def chatglm1_logits(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    ids: Sequence[int],
    prefix: Tensor | None = None,
) -> Tensor:
    """Logits (tokens, vocabulary) of a ChatGLM-6B, in float64, from its definition.

    prefix (virtual tokens, 2 layers, heads, dim): keys and values of P-tuning v2, which every token
    sees, as they are and without positions of their own.

    GLM (Du et al. 2022): what precedes bos is seen by all and numbered along the first position
    channel; bos and what follows is causal and numbered along the second.
    """
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    width, count = config["hidden_size"], config["num_attention_heads"]
    dim = width // count
    tokens = len(ids)
    prompt = list(ids).index(config["bos_token_id"])
    mask_ids = (config["gmask_token_id"], config["mask_token_id"])
    mask = list(ids).index(mask_ids[0] if mask_ids[0] in ids else mask_ids[1])
    places = [[i, 0] if i < prompt else [mask, i - prompt + 1] for i in range(tokens)]
    seen = torch.tensor([[j <= i or j < prompt for j in range(tokens)] for i in range(tokens)])
    trained = torch.zeros(0, 2 * config["num_layers"], count, dim) if prefix is None else prefix
    trained = trained.double().permute(1, 2, 0, 3)  # (2 layers, count, virtual tokens, dim)
    seen = torch.cat([seen.new_ones(tokens, trained.shape[2]), seen], dim=1)
    alpha = (2 * config["num_layers"]) ** 0.5
    eps: float = config["layernorm_epsilon"]

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        unit = centred / (variance + eps).sqrt()
        return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name: str, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        heads = linear(f"{name}.query_key_value", x).view(tokens, count, 3 * dim)
        query, key, value = heads.transpose(0, 1).chunk(3, dim=-1)  # (count, tokens, dim)
        key = torch.cat([keys, _turned(key, places)], dim=1)
        value = torch.cat([values, value], dim=1)
        scores = _turned(query, places) @ key.transpose(1, 2) / dim**0.5
        shares = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return linear(f"{name}.dense", (shares @ value).transpose(0, 1).reshape(tokens, width))

    h = weights["transformer.word_embeddings.weight"][list(ids)]
    for n in range(config["num_layers"]):
        layer = f"transformer.layers.{n}"
        a = norm(f"{layer}.input_layernorm", h)
        x = alpha * a + attention(f"{layer}.attention", a, *trained[2 * n : 2 * n + 2])
        m = norm(f"{layer}.post_attention_layernorm", x)
        u = linear(f"{layer}.mlp.dense_h_to_4h", m)
        inner = 0.5 * u * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (u + 0.044715 * u**3)))
        h = alpha * m + linear(f"{layer}.mlp.dense_4h_to_h", inner)
    return linear("lm_head", norm("transformer.final_layernorm", h))


def _turned(heads: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """Rotate each half of the heads (count, tokens, dim) by its own position."""
    half = heads.shape[-1] // 2
    # the published weights go with frequencies rounded to half precision
    frequencies = (10_000 ** (-torch.arange(0, half, 2) / half)).half().double()
    turned = []
    for channel, part in enumerate(heads.chunk(2, dim=-1)):
        angles = torch.tensor([place[channel] for place in places])[:, None] * frequencies
        pairs = torch.complex(*part.chunk(2, dim=-1))
        product = pairs * torch.polar(torch.ones_like(angles), angles)
        turned += [product.real, product.imag]
    return torch.cat(turned, dim=-1)


def _save(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {k: t.detach().contiguous() for k, t in tensors.items()}, folder / "model.safetensors"
    )
