"""What a GGUF file's metadata says is computed with, or refused by name; nothing is left out.

Expected logits are transformers' with the configuration that llama.cpp's definition amounts to.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, Qwen2Config, Qwen3Config
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

from engine.errors import ModelUnavailable
from engine.kernels.portable import PortableKernels
from engine.models.catalogue import resolve
from engine.models.gguf import GgufCheckpoint
from engine.models.gguf_metadata import known_keys
from engine.models.gguf_rope import RopeTensors, rope_parameters
from engine.models.kernel_selection import KernelChoice
from tests.support.decoders import Runner
from tests.support.gguf_files import SIZES, VOCABULARY, model_of, write_gguf_model

THETA = 10_000.0
PAIRS = 8  # of a head's 16 channels
WAVELENGTHS = [2 * math.pi * THETA ** (i / PAIRS) for i in range(PAIRS)]
IDS = torch.randint(3, 259, (1, 150), generator=torch.Generator().manual_seed(3))
ODD = [1.0, 1.5, 1.0, 3.0, 2.0, 5.0, 4.0, 7.0]  # divisors that no formula gives


def llama3_divisors(factor: float, old_context: int) -> list[float]:
    """As llama.cpp's converter writes them (low_freq_factor 1, high_freq_factor 4)."""
    divisors = []
    for wavelength in WAVELENGTHS:
        if wavelength < old_context / 4:
            divisors.append(1.0)
        elif wavelength > old_context:
            divisors.append(factor)
        else:
            smooth = (old_context / wavelength - 1) / 3
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return divisors


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LLAMA31 = LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "attention_factor": 1 + 0.1 * math.log(4),
}


def longrope(short: list[float], attention_factor: float = 1.0) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": short,
        "attention_factor": attention_factor,
        "original_max_position_embeddings": 512,
    }


# The metadata and tensors of a file, and what the model computes with
ROPES: dict[str, tuple[dict[str, Any], dict[str, list[float]], dict[str, Any]]] = {
    "linear": (
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {},
        {"rope_type": "linear", "factor": 4.0},
    ),
    "a factor without a type": (
        {"llama.rope.scaling.factor": 2.0},
        {},
        {"rope_type": "linear", "factor": 2.0},
    ),
    "the old key": ({"llama.rope.scale_linear": 4.0}, {}, {"rope_type": "linear", "factor": 4.0}),
    "llama3": (
        {"llama.rope.scaling.original_context_length": 64},
        {"rope_freqs.weight": llama3_divisors(8, 64)},
        LLAMA3,
    ),
    "llama3, as published": ({}, {"rope_freqs.weight": llama3_divisors(32, 8192)}, LLAMA31),
    "other divisors": ({}, {"rope_freqs.weight": ODD}, longrope(ODD)),
    "other divisors and a factor": (
        {"llama.rope.scaling.factor": 2.0},
        {"rope_freqs.weight": ODD},
        longrope([2 * divisor for divisor in ODD]),
    ),
    "yarn": (
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 64,
            "llama.rope.scaling.finetuned": True,
        },
        {},
        YARN,
    ),
    "yarn, all of its settings": (
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 64,
            "llama.rope.scaling.attn_factor": 0.5,
            "llama.rope.scaling.yarn_beta_fast": 16.0,
            "llama.rope.scaling.yarn_beta_slow": 2.0,
            "llama.rope.scaling.yarn_ext_factor": 1.0,
        },
        {},
        YARN
        | {"attention_factor": 0.5 * (1 + 0.1 * math.log(4)), "beta_fast": 16.0, "beta_slow": 2.0},
    ),
    "an attention factor alone": (
        {"llama.rope.scaling.attn_factor": 0.5},
        {},
        longrope([1.0] * PAIRS, attention_factor=0.5),
    ),
    "longrope": (
        {
            "llama.rope.scaling.type": "longrope",
            "llama.rope.scaling.attn_factor": 1.25,
            "llama.rope.scaling.original_context_length": 64,
        },
        {"rope_factors_short.weight": [1.0] * PAIRS, "rope_factors_long.weight": ODD},
        longrope([1.0] * PAIRS, 1.25)
        | {"long_factor": ODD, "original_max_position_embeddings": 64},
    ),
}


def logits_of(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(IDS).logits[0]
    return logits


def loaded(folder: Path) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


@pytest.mark.parametrize("name", ROPES)
def test_rotary_settings_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    metadata, tensors, rope = ROPES[name]
    expected_model = model_of(LlamaConfig(**SIZES, rope_parameters={"rope_theta": THETA, **rope}))
    file = write_gguf_model(tmp_path / "m.gguf", expected_model, metadata, tensors)
    folder = resolve(str(file), tmp_path / "cache").folder

    expected, found = logits_of(expected_model), logits_of(loaded(folder))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    without = logits_of(model_of(LlamaConfig(**SIZES)))
    # the fastest pairs of published Llama 3.1 checkpoints are not divided: 150 tokens tell little
    assert (found - without).abs().max() > (1e-3 if name == "llama3, as published" else 1e-2)
    if name != "longrope":  # whose factors change with the length; the reference engine has it
        fast = Runner.of(folder, KernelChoice(PortableKernels(), "asked for"))
        torch.testing.assert_close(fast.logits(IDS[0].tolist()), expected, rtol=0, atol=1e-4)


def test_published_llama_divisors_are_recognised() -> None:
    found = rope_parameters(
        {"rope.freq_base": THETA},
        RopeTensors(freqs=llama3_divisors(32, 8192)),
        pairs=PAIRS,
        context_tokens=131_072,
    )
    assert found == {"rope_theta": THETA, **LLAMA31}


SHAPES = {
    "llama, tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama, biases": LlamaConfig(**SIZES, attention_bias=True),
    "llama, other theta and eps": LlamaConfig(
        **SIZES, rms_norm_eps=1e-3, rope_parameters={"rope_type": "default", "rope_theta": 333.0}
    ),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=24),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_computes_what_it_was_made_of(tmp_path: Path, name: str) -> None:
    config = SHAPES[name]
    model = model_of(config)
    head = {f"{config.model_type}.attention.key_length": 24} if name == "qwen3" else {}
    file = write_gguf_model(tmp_path / "m.GGUF", model, head)  # in capitals, as some are named
    folder = resolve(str(file), tmp_path / "cache").folder
    torch.testing.assert_close(logits_of(loaded(folder)), logits_of(model), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"llama.rope.scaling.type": "dynamic"}, r"rope\.scaling\.type = 'dynamic'"),
        ({"llama.rope.scaling.type": "longrope"}, r"rope\.scaling\.type = 'longrope'"),
        ({"llama.rope.scaling.alpha": 3.0}, r"setting rope\.scaling\.alpha is not known"),
        ({"llama.rope.scaling.yarn_ext_factor": 0.5}, r"yarn_ext_factor = 0\.5 is not supported"),
        ({"llama.rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier = 0.1"),
        ({"llama.rope.dimension_count": 8}, r"rope\.dimension_count = 8 is not supported"),
        ({"llama.attention.value_length": 8}, r"attention\.value_length = 8 is not supported"),
        ({"llama.attention.sliding_window": 64}, r"attention\.sliding_window = 64"),
        ({"llama.attention.scale": 0.5}, r"setting attention\.scale is not known"),
        ({"llama.expert_count": 8}, "expert_count = 8 is not supported"),
        ({"llama.logit_scale": 0.1}, "setting logit_scale is not known"),
        ({"llama.embedding_scale": 12.0}, "setting embedding_scale is not known"),
        ({"llama.residual_scale": 0.2}, "setting residual_scale is not known"),
        ({"llama.context_length": None}, "has no setting context_length"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "has no setting attention.layer_norm"),
        ({"tokenizer.ggml.shrink": 1}, r"setting tokenizer\.ggml\.shrink is not known"),
        ({"tokenizer.ggml.pre": "deepseek-llm"}, "splits text as 'deepseek-llm'"),
        ({"tokenizer.chat_template": None}, "it has no chat template"),
        ({"tokenizer.chat_template": "{{ messages.append(1) }}"}, "chat template is refused"),
        ({"general.type": "adapter"}, "a file of type 'adapter', not a model"),
        ({"split.count": 2}, "it is one of 2 parts"),
    ],
)
def test_a_setting_that_would_be_left_out_is_refused_by_name(
    tmp_path: Path, plain: nn.Module, metadata: dict[str, Any], reason: str
) -> None:
    file = write_gguf_model(tmp_path / "m.gguf", plain, metadata)
    with pytest.raises(ModelUnavailable, match=f"cannot use .*{reason}"):
        resolve(str(file), tmp_path / "cache")
    assert not [*(tmp_path / "cache").rglob("*.safetensors")]


@pytest.mark.parametrize(
    "metadata",
    [
        {"general.url": "https://example.org"},
        {"llama.rope.scaling.finetuned": True, "llama.rope.dimension_count": 16},
        {"llama.expert_count": 0, "llama.attention.causal": True},
        {"quantize.imatrix.file": "a.dat", "split.count": 1},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
        {"tokenizer.chat_template.tool_use": "{{ 1 }}", "tokenizer.chat_templates": ["tool_use"]},
    ],
)
def test_settings_that_change_nothing_are_accepted(
    tmp_path: Path, plain: nn.Module, metadata: dict[str, Any]
) -> None:
    file = write_gguf_model(tmp_path / "m.gguf", plain, metadata)
    folder = resolve(str(file), tmp_path / "cache").folder
    torch.testing.assert_close(logits_of(loaded(folder)), logits_of(plain), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"blk.0.attn_q.bias": [0.0] * 64}, "no place for its tensor .*q_proj.bias"),
        ({"rope_freqs.weight": [1.0] * 3}, "must hold 8 positive factors"),
        ({"rope_freqs.weight": [1.0] * 7 + [0.0]}, "must hold 8 positive factors"),
    ],
)
def test_a_tensor_that_would_be_left_out_is_refused_by_name(
    tmp_path: Path, plain: nn.Module, tensors: dict[str, list[float]], reason: str
) -> None:
    file = write_gguf_model(tmp_path / "m.gguf", plain, tensors=tensors)
    with pytest.raises(ModelUnavailable, match=f"cannot use .*{reason}"):
        resolve(str(file), tmp_path / "cache")


def phi3(rotated: float) -> nn.Module:
    """Phi-3, which transformers alone decodes, with this part of each head's channels rotated."""
    rope = {"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": rotated}
    return model_of(Phi3Config(**SIZES, rope_parameters=rope, pad_token_id=None))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"phi3.rope.dimension_count": 16, "phi3.attention.value_length": 16},
        {"phi3.expert_feed_forward_length": SIZES["intermediate_size"]},
    ],
)
def test_what_transformers_computes_with_is_accepted(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    model = phi3(rotated=1.0)
    sizes = {"phi3.vocab_size": len(VOCABULARY), "tokenizer.ggml.padding_token_id": 0}
    file = write_gguf_model(tmp_path / "m.gguf", model, sizes | metadata)
    folder = resolve(str(file), tmp_path / "cache").folder
    torch.testing.assert_close(logits_of(loaded(folder)), logits_of(model), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"phi3.rope.dimension_count": 8}, r"rope\.dimension_count = 8 .* computes with 16"),
        ({"phi3.attention.value_length": 8}, r"attention\.value_length = 8 .* computes with 16"),
        ({"phi3.expert_feed_forward_length": 9}, r"expert_feed_forward_length = 9 .* with 136"),
        ({"phi3.rope.scaling.factor": 4.0}, r"setting rope\.scaling\.factor is not known"),
    ],
)
def test_what_transformers_would_leave_out_is_refused_by_name(
    tmp_path: Path, metadata: dict[str, Any], reason: str
) -> None:
    file = write_gguf_model(tmp_path / "m.gguf", phi3(rotated=0.5), metadata)
    with pytest.raises(ModelUnavailable, match=f"cannot use .*{reason}"):
        resolve(str(file), tmp_path / "cache")
    assert not [*(tmp_path / "cache").rglob("*.safetensors")]


class Recorder(dict[str, Any]):
    """Metadata of a file that has every setting, and the keys that were looked up."""

    def __getitem__(self, key: str) -> Any:
        self[key] = [8] if key.endswith(("dimension_sections", "head_count_kv")) else 8
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]


@pytest.mark.parametrize("architecture", GGUF_CONFIG_ARCHS)
def test_the_keys_listed_by_hand_are_those_that_transformers_functions_read(
    architecture: str,
) -> None:
    metadata = Recorder()
    GGUF_CONFIG_ARCHS[architecture](metadata, ())
    prefix = f"{architecture}."
    read = {key.removeprefix(prefix) for key in metadata if key.startswith(prefix)}
    assert read == set(known_keys()["read_by_function"][architecture])


@pytest.mark.parametrize("architecture", GGUF_CONFIG_ARCHS)
@pytest.mark.parametrize("key", ["rope.scaling.factor", "logit_scale"])
def test_a_setting_that_such_a_function_does_not_read_is_refused_by_name(
    tmp_path: Path, plain: nn.Module, architecture: str, key: str
) -> None:
    metadata = {"general.architecture": architecture, f"{architecture}.{key}": 2.0}
    file = write_gguf_model(tmp_path / "m.gguf", plain, metadata)
    with pytest.raises(ModelUnavailable, match=f"cannot use .*setting {key} is not known"):
        resolve(str(file), tmp_path / "cache")


def test_a_file_too_large_to_convert_is_refused_before_its_weights_are_read(
    tmp_path: Path, plain: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf_model(tmp_path / "m.gguf", plain)
    needed = 2 * sum(tensor.numel() for tensor in plain.state_dict().values())  # in bfloat16
    monkeypatch.setattr(GgufCheckpoint, "tensor", lambda *_: pytest.fail("a weight was read"))
    free = SimpleNamespace(available=needed - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(ModelUnavailable, match=r"needs about .* to be converted"):
        resolve(str(file), tmp_path / "cache")
