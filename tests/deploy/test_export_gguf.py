"""GGUF files of exports: the engine's own blocks, and every setting read back as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants
from transformers import AutoTokenizer, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from deploy.export.formats import export_release
from deploy.export.gguf_tensors import encode_blocks
from engine.errors import InvalidInput
from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.models.checkpoint import open_checkpoint
from engine.models.families import architecture_of
from engine.quantization.groups import QuantizedMatrix, quantize_int4
from engine.request import ScoreRequest
from tests.helpers import Tensors, answer, make_bundle
from tests.support.decoders import SIZES, write_random
from tests.support.gguf_files import write_gguf_model
from tests.support.tiny_model import write_tiny_model

Q4_1, Q8_0 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0


def exported(base: BaseModel, root: Path, digest: str | None, quantization: str) -> Path:
    target = root / f"gguf-{quantization}"
    export_release(base, root / "bundles", digest, target, "gguf", quantization=quantization)
    (file,) = target.glob("*.gguf")
    return file


class TestBlocks:
    def test_a_group_of_int4_is_a_block_of_q4_1(self) -> None:
        """ggml's block_q4_1: scale, min, then bytes, weight i low and i + 16 high."""
        codes = torch.arange(32, dtype=torch.uint8).remainder(16)[None]
        codes[0, 16] = 5
        matrix = QuantizedMatrix(
            codes, torch.tensor([[0.5]]).half(), torch.tensor([[-2.0]]).half(), 4
        )
        block = encode_blocks(matrix)
        assert block[0, :4].tobytes() == np.array([0.5, -2.0], "<f2").tobytes()
        assert block[0, 4:].tolist() == [0x50, *(code | code << 4 for code in range(1, 16))]

    @pytest.mark.parametrize("kind", [Q4_1, Q8_0])
    def test_llama_cpps_own_package_reads_the_same_weights(self, kind: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(0, 16, (6, 64), generator=generator)
        scales = torch.rand((6, 2), generator=generator).half()
        mins = -torch.rand((6, 2), generator=generator).half()
        matrix = (
            QuantizedMatrix(codes.to(torch.uint8), scales, mins, 4)
            if kind == Q4_1
            else QuantizedMatrix((codes - 8).to(torch.int8), scales, None, 8)
        )
        found = quants.dequantize(encode_blocks(matrix), kind)
        assert np.array_equal(found, matrix.dequantize().numpy())


class TestTheEngineReadsIt:
    @pytest.mark.parametrize(("quantization", "served"), [("q4_1", "int4"), ("q8_0", "int8")])
    def test_the_blocks_are_those_that_it_serves_of_the_merged_folder(
        self,
        quantization: str,
        served: Any,
        tiny_base: BaseModel,
        kernel_cache: Path,
        tmp_path: Path,
    ) -> None:
        """So the log-probabilities are equal, not alike."""
        bundle = make_bundle(tmp_path / "bundles", tiny_base)
        file = exported(tiny_base, tmp_path, bundle, quantization)
        export_release(tiny_base, tmp_path / "bundles", bundle, tmp_path / "merged")
        scores = []
        for model in (file, tmp_path / "merged"):
            base = resolve(str(model), tmp_path / "cache")
            engine = FastEngine(base, kernel_cache=kernel_cache, quantization=served)
            with contextlib.closing(engine):
                request = ScoreRequest((Message("user", "Say hello."),), "The river.", None)
                text = answer(engine, "Tell me about the sea.", max_new_tokens=24).text
                scores.append((engine.score([request])[0].total, text))
        assert scores[0] == scores[1]

    def test_a_matrix_that_the_adapter_leaves_alone_keeps_its_block_of_the_base_file(
        self, tiny_base: BaseModel, tmp_path: Path
    ) -> None:
        base = resolve(str(exported(tiny_base, tmp_path / "first", None, "q4_1")), tmp_path / "c")
        bundle = make_bundle(
            tmp_path / "bundles",
            base,
            config={"target_modules": ["q_proj"]},
            doctor=lambda tensors: {k: t for k, t in tensors.items() if "q_proj" in k},
        )
        assert base.gguf is not None
        old, new = (
            {tensor.name: tensor for tensor in GGUFReader(file).tensors}
            for file in (base.gguf, exported(base, tmp_path, bundle, "q4_1"))
        )
        assert old.keys() == new.keys()
        same = {name for name in old if np.array_equal(old[name].data, new[name].data)}
        assert old.keys() - same == {"blk.0.attn_q.weight", "blk.1.attn_q.weight"}

    def test_a_row_that_is_no_whole_blocks_is_f16(self, tmp_path: Path, kernel_cache: Path) -> None:
        sizes = SIZES | {"intermediate_size": 136}
        base = written(tmp_path, LlamaConfig, sizes)
        file = exported(base, tmp_path, None, "q4_1")
        kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
        assert kinds["blk.0.ffn_down.weight"] == "F16"
        assert kinds["blk.0.ffn_up.weight"] == "Q4_1"
        assert kinds["token_embd.weight"] == "Q8_0"
        assert kinds["blk.0.attn_norm.weight"] == "F32"


def written(root: Path, kind: Any, settings: Mapping[str, Any]) -> BaseModel:
    """A random model of some settings with the tiny tokenizer."""
    folder = root / "model"
    write_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = {"max_position_embeddings": 512, **settings, "vocab_size": len(tokenizer)}
    write_random(folder, kind(**config, bos_token_id=None, **ids))
    return resolve(str(folder), root / "cache")


THETA = {"rope_theta": 50_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "llama with biases": (LlamaConfig, {"attention_bias": True}),
    "wide heads": (LlamaConfig, {"head_dim": 32}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 32}),
    "linear": (LlamaConfig, {"rope_parameters": {"rope_type": "linear", "factor": 4.0, **THETA}}),
    "llama3": (LlamaConfig, {"rope_parameters": {**LLAMA3, **THETA}}),
    "yarn": (LlamaConfig, {"rope_parameters": {**YARN, **THETA}}),
    "yarn of qwen2": (Qwen2Config, {"rope_parameters": {**YARN, **THETA}}),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_and_weight_is_read_back(name: str, tmp_path: Path) -> None:
    kind, settings = MODELS[name]
    base = written(tmp_path, kind, SIZES | settings)
    file = exported(base, tmp_path, None, "f16")
    back = resolve(str(file), tmp_path / "cache")
    ours, theirs = (architecture_of(each.folder).config for each in (base, back))
    np.testing.assert_allclose(ours.rotary_frequencies, theirs.rotary_frequencies, rtol=1e-6)
    assert ours.rotary_scale == pytest.approx(theirs.rotary_scale, rel=1e-6)
    assert ours.eps == pytest.approx(theirs.eps)
    assert (ours.heads, ours.context_tokens) == (theirs.heads, theirs.context_tokens)
    before = open_checkpoint(base.folder)
    after = open_checkpoint(back.folder, file)
    assert before.names == after.names
    for tensor in before.names:
        assert torch.equal(before.tensor(tensor).half(), after.tensor(tensor).half()), tensor


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a window": (MistralConfig, {"sliding_window": 64}, "sliding window"),
    "Qwen's llama3": (
        Qwen2Config,
        {"rope_parameters": {**LLAMA3, **THETA}},
        "no rope_type 'llama3'",
    ),
    "a bias of the MLP": (LlamaConfig, {"mlp_bias": True}, "mlp_bias"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_say_is_refused_by_name(name: str, tmp_path: Path) -> None:
    kind, settings, reason = REFUSED[name]
    base = written(tmp_path, kind, SIZES | settings)
    with pytest.raises(InvalidInput, match=reason):
        exported(base, tmp_path, None, "f16")


def test_a_weight_beyond_float16_is_refused_and_nothing_is_left(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    def huge(tensors: Tensors) -> Tensors:
        for side in "AB":
            tensors[f"base_model.model.model.layers.0.mlp.up_proj.lora_{side}.weight"][0, 0] = 900
        return tensors

    bundle = make_bundle(tmp_path / "bundles", tiny_base, doctor=huge)
    with pytest.raises(InvalidInput, match="beyond 65504"):
        exported(tiny_base, tmp_path, bundle, "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["bundles"]


def test_a_tokenizer_that_came_as_gguf_is_copied(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    from tests.support.gguf_files import SIZES as GGUF_SIZES

    model = LlamaForCausalLM(LlamaConfig(**GGUF_SIZES))
    first = write_gguf_model(tmp_path / "first.gguf", model)
    base = resolve(str(first), tmp_path / "cache")
    second = exported(base, tmp_path, None, "f16")
    old, new = (
        {
            key: field.contents()
            for key, field in GGUFReader(file).fields.items()
            if key.startswith("tokenizer.")
        }
        for file in (first, second)
    )
    assert old == new


@pytest.mark.slow
def test_the_embedded_model_leaves_as_it_came(smollm: BaseModel, tmp_path: Path) -> None:
    assert smollm.gguf is not None
    file = exported(smollm, tmp_path, None, "q4_1")
    old, new = (
        {tensor.name: tensor for tensor in GGUFReader(each).tensors} for each in (smollm.gguf, file)
    )
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        assert tensor.tensor_type == new[name].tensor_type
        assert np.array_equal(tensor.data, new[name].data), name


def test_rounding_is_the_engines(tiny_base: BaseModel, tmp_path: Path) -> None:
    """A matrix whose rows are not reordered has the blocks of `quantize_int4`."""
    bundle = make_bundle(tmp_path / "bundles", tiny_base)
    export_release(tiny_base, tmp_path / "bundles", bundle, tmp_path / "merged")
    weight = open_checkpoint(tmp_path / "merged").tensor("model.layers.1.mlp.down_proj.weight")
    (tensor,) = (
        each
        for each in GGUFReader(exported(tiny_base, tmp_path, bundle, "q4_1")).tensors
        if each.name == "blk.1.ffn_down.weight"
    )
    assert np.array_equal(tensor.data, encode_blocks(quantize_int4(weight)))
