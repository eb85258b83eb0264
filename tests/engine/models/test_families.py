"""LLaMA, Mistral, Qwen and GLM in transformers' layout: our decoder against transformers' own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Glm4Config, GlmConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from engine.errors import ModelUnavailable
from engine.kernels.portable import PortableKernels
from engine.models.checkpoint import open_checkpoint
from engine.models.families import architecture_of, family_of
from engine.models.kernel_selection import KernelChoice
from engine.models.loading import WeightFormat, load_decoder
from tests.support.decoders import SIZES, Runner, random_ids, write_random

TOLERANCE = 1e-4
NARROW = SIZES | {"head_dim": 24}  # 4 heads of 24 channels, of 64 hidden ones


def rope(rope_type: str, **parameters: float | list[float]) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10_000.0, **parameters}}


LLAMA3 = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=64)
OTHER_ROPE = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25}
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama, llama3 rope": LlamaConfig(**SIZES, **LLAMA3),
    "llama, yarn rope": LlamaConfig(**SIZES, **YARN),
    "llama, linear rope": LlamaConfig(**SIZES, **rope("linear", factor=2.5)),
    "llama, other theta and eps": LlamaConfig(
        **SIZES, rms_norm_eps=1e-3, rope_parameters={"rope_type": "default", "rope_theta": 333.0}
    ),
    "llama, biases": LlamaConfig(**SIZES, attention_bias=True),
    "llama, tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama, heads of other widths": LlamaConfig(**NARROW),
    "llama, every head its own keys": LlamaConfig(**SIZES | {"num_key_value_heads": 4}),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "mistral, window": MistralConfig(**SIZES, sliding_window=16),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2, windows everywhere": Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=20, max_window_layers=0
    ),
    "qwen3": Qwen3Config(**NARROW),
    "qwen3, biases": Qwen3Config(**NARROW, attention_bias=True),
    "glm": GlmConfig(**SIZES, head_dim=16, pad_token_id=0),
    "glm, no biases": GlmConfig(**NARROW, pad_token_id=0, attention_bias=False),
    "glm, a quarter rotated": GlmConfig(**SIZES, head_dim=16, pad_token_id=0, **OTHER_ROPE),
    "glm4": Glm4Config(**SIZES, head_dim=16, pad_token_id=0),
    "glm4, no biases": Glm4Config(**NARROW, pad_token_id=0, attention_bias=False),
}
LONG, SHORT = random_ids(70, seed=1), random_ids(41, seed=2)


class Peer(NamedTuple):
    """A checkpoint, and what transformers says to `LONG` and `SHORT`."""

    folder: Path
    long: Tensor
    short: Tensor


@pytest.fixture(scope="module", params=CONFIGS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    folder = tmp_path_factory.mktemp("peer")
    model = write_random(folder, CONFIGS[request.param])
    with torch.inference_mode():
        long, short = (model(torch.tensor([ids])).logits[0] for ids in (LONG, SHORT))
    assert long.abs().max() > 1  # or a tolerance would hide everything
    return Peer(folder, long, short)


@pytest.fixture
def runner(peer: Peer, choice: KernelChoice) -> Runner:
    return Runner.of(peer.folder, choice)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_a_whole_prompt_gives_transformers_logits(runner: Runner, peer: Peer) -> None:
    assert_same(runner.logits(LONG), peer.long)
    assert_same(runner.logits(SHORT), peer.short)


def test_a_prompt_in_chunks_gives_transformers_logits(runner: Runner, peer: Peer) -> None:
    text = runner.begin(LONG)
    chunks = [
        runner.step((text, LONG[begin:end]))[0]
        for begin, end in ((0, 1), (1, 32), (32, 65), (65, 70))
    ]
    assert_same(torch.cat(chunks), peer.long)


def test_tokens_one_by_one_give_transformers_logits(runner: Runner, peer: Peer) -> None:
    text = runner.begin(SHORT)
    steps = [runner.step((text, [token]))[0] for token in SHORT]
    assert_same(torch.cat(steps), peer.short)


def test_two_texts_of_different_lengths_in_a_batch_give_transformers_logits(
    runner: Runner, peer: Peer
) -> None:
    long, short = runner.begin(LONG), runner.begin(SHORT)
    (first,) = runner.step((long, LONG[:50]))
    second, whole = runner.step((long, LONG[50:55]), (short, SHORT[:40]))
    last, third = runner.step((short, SHORT[40:]), (long, LONG[55:]))
    assert_same(torch.cat([first, second, third]), peer.long)
    assert_same(torch.cat([whole, last]), peer.short)


# What is not covered is refused by name


REFUSED = {
    "rope_type 'dynamic'": LlamaConfig(**SIZES, **rope("dynamic", factor=2.0)),
    "rope_type 'longrope'": LlamaConfig(
        **SIZES,
        **rope(
            "longrope",
            short_factor=[1.0] * 8,
            long_factor=[2.0] * 8,
            factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "mlp_bias = True": LlamaConfig(**SIZES, mlp_bias=True),
    "hidden_act = 'gelu'": LlamaConfig(**SIZES, hidden_act="gelu"),
    "hidden_act = 'relu'": GlmConfig(**SIZES, pad_token_id=0, hidden_act="relu"),
    "rope_type = 'linear'": GlmConfig(**SIZES, pad_token_id=0, **rope("linear", factor=2.0)),
    "windows on some layers only": Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
}


@pytest.mark.parametrize("named", REFUSED)
def test_a_setting_that_is_not_covered_is_refused_by_name(named: str, tmp_path: Path) -> None:
    REFUSED[named].save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="does not cover") as refused:
        architecture_of(tmp_path)
    assert named in str(refused.value)


def test_weights_quantized_by_another_library_are_refused(tmp_path: Path) -> None:
    LlamaConfig(**SIZES, quantization_config={"quant_method": "fp8"}).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="quantization_config"):
        architecture_of(tmp_path)


@pytest.mark.parametrize("model_type", ["gemma", "mixtral", None, 3])
def test_a_model_type_without_a_decoder_is_refused_by_name(
    model_type: object, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert family_of(model_type) is None
    with pytest.raises(ModelUnavailable, match=f"no decoder for model type {model_type!r}"):
        architecture_of(tmp_path)


# Weights that do not fit the configuration


@pytest.fixture
def tensors(tmp_path: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a good checkpoint in `tmp_path`, to be changed and saved."""
    write_random(tmp_path, LlamaConfig(**SIZES, attention_bias=True))
    yield load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.k_proj.bias",
        "model.layers.1.input_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_a_missing_or_misshapen_tensor_is_named(
    tmp_path: Path, tensors: dict[str, Tensor], name: str
) -> None:
    def load() -> None:
        weight_format = WeightFormat(
            "none", "cpu", torch.float32, KernelChoice(PortableKernels(), "")
        )
        load_decoder(open_checkpoint(tmp_path), architecture_of(tmp_path), weight_format)

    load()
    save_file(tensors | {name: tensors[name][:-1]}, tmp_path / "model.safetensors")
    with pytest.raises(ModelUnavailable, match=f"{name} has shape"):
        load()
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelUnavailable, match=name):
        load()
