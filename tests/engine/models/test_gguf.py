"""GGUF files: tensors by their names, and quantized groups as the file has them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, ReaderTensor, quants
from numpy.typing import NDArray

from engine.errors import ModelUnavailable
from engine.models.catalogue import BaseModel, embedded_gguf
from engine.models.checkpoint import FolderCheckpoint, open_checkpoint
from engine.models.gguf import GgufCheckpoint
from engine.quantization.groups import QuantizedMatrix

Q4_0, Q4_1, Q8_0 = (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0)


Stored = tuple[NDArray[np.generic], GGMLQuantizationType]


# Codes 0 to 15 in the low halves of the bytes, 15 to 0 in the high ones.
NIBBLES = bytes(i | (15 - i) << 4 for i in range(16))


CODES = [*range(16), *range(15, -1, -1)]


DOWN = "model.layers.0.mlp.down_proj.weight"


def half(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def rows(*blocks: bytes, kind: GGMLQuantizationType) -> Stored:
    """One row for each block given, as the writer takes it."""
    return np.stack([np.frombuffer(block, np.uint8) for block in blocks]), kind


def dense(values: NDArray[np.generic]) -> Stored:
    kind = {"float32": GGMLQuantizationType.F32, "float16": GGMLQuantizationType.F16}
    return values, kind[str(values.dtype)]


def write_gguf(
    path: Path, tensors: Mapping[str, Stored], architecture: str = "llama", heads: int = 2
) -> Path:
    """A GGUF file of these tensors, with one key head and a little vocabulary."""
    writer = GGUFWriter(path, architecture)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_token_list(["a", "bc", ""])
    writer.add_token_types([1, 1, 3])
    for name, (values, kind) in tensors.items():
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def one_tensor(tmp_path: Path, stored: Stored) -> GgufCheckpoint:
    file = write_gguf(tmp_path / "one.gguf", {"blk.0.ffn_down.weight": stored})
    return GgufCheckpoint(file, {})


def carried(checkpoint: GgufCheckpoint, name: str = DOWN) -> QuantizedMatrix:
    blocks = checkpoint.blocks(name)
    assert blocks is not None
    return blocks


class TestBlocksByHand:
    """32 weights a block; the values are worked out from the layouts."""

    def test_q4_0(self, tmp_path: Path) -> None:
        # weight = d (q - 8): the second row is twice the first
        checkpoint = one_tensor(tmp_path, rows(half(0.5) + NIBBLES, half(1.0) + NIBBLES, kind=Q4_0))
        blocks = carried(checkpoint)
        assert blocks.bits == 4
        assert blocks.codes.dtype == torch.uint8 and blocks.codes.tolist() == [CODES, CODES]
        assert blocks.scales.dtype == torch.float16 and blocks.scales.tolist() == [[0.5], [1.0]]
        assert blocks.mins is not None and blocks.mins.dtype == torch.float16
        assert blocks.mins.tolist() == [[-4.0], [-8.0]]
        expected = [[0.5 * (q - 8) for q in CODES], [float(q - 8) for q in CODES]]
        assert blocks.dequantize().tolist() == expected == checkpoint.tensor(DOWN).tolist()

    def test_q4_1(self, tmp_path: Path) -> None:
        checkpoint = one_tensor(tmp_path, rows(half(0.25, -1.0) + NIBBLES, kind=Q4_1))
        blocks = carried(checkpoint)
        assert blocks.bits == 4
        assert blocks.codes.tolist() == [CODES]
        assert blocks.scales.tolist() == [[0.25]]
        assert blocks.mins is not None and blocks.mins.tolist() == [[-1.0]]
        expected = [[0.25 * q - 1 for q in CODES]]
        assert blocks.dequantize().tolist() == expected == checkpoint.tensor(DOWN).tolist()

    def test_q8_0(self, tmp_path: Path) -> None:
        codes = [-127, -1, 0, 127, *range(-14, 14)]
        checkpoint = one_tensor(tmp_path, rows(half(0.125) + struct.pack("32b", *codes), kind=Q8_0))
        blocks = carried(checkpoint)
        assert blocks.bits == 8 and blocks.mins is None
        assert blocks.codes.dtype == torch.int8 and blocks.codes.tolist() == [codes]
        assert blocks.scales.tolist() == [[0.125]]
        expected = [[0.125 * q for q in codes]]
        assert blocks.dequantize().tolist() == expected == checkpoint.tensor(DOWN).tolist()

    def test_groups_of_a_row_stay_in_order(self, tmp_path: Path) -> None:
        two_groups = half(1.0) + NIBBLES + half(2.0) + NIBBLES[::-1]
        blocks = carried(one_tensor(tmp_path, rows(two_groups, two_groups, kind=Q4_0)))
        assert blocks.scales.tolist() == [[1.0, 2.0]] * 2
        backwards = [*range(15, -1, -1), *range(16)]
        assert blocks.codes.tolist() == [CODES + backwards] * 2

    @pytest.mark.parametrize("scale", [8188.0, -8188.0, 2.0**-24, 0.0])
    def test_the_zero_of_q4_0_is_carried_over_exactly(self, tmp_path: Path, scale: float) -> None:
        checkpoint = one_tensor(tmp_path, rows(half(scale) + NIBBLES, kind=Q4_0))
        blocks = carried(checkpoint)
        assert blocks.mins is not None and blocks.mins.tolist() == [[-8 * scale]]
        assert torch.equal(blocks.dequantize(), checkpoint.tensor(DOWN))

    @pytest.mark.parametrize("scale", [8192.0, -65504.0])
    def test_a_q4_0_scale_whose_zero_overflows_is_given_dense(
        self, tmp_path: Path, scale: float
    ) -> None:
        checkpoint = one_tensor(tmp_path, rows(half(scale) + NIBBLES, kind=Q4_0))
        assert checkpoint.blocks(DOWN) is None
        assert checkpoint.tensor(DOWN).tolist() == [[scale * (q - 8) for q in CODES]]


class TestOtherTypes:
    def test_dense_tensors_keep_their_dtype(self, tmp_path: Path) -> None:
        values = np.array([[1.0, -2.5], [0.15625, 3.0]], np.float32)  # exact in bf16 too
        bf16 = quants.quantize(values, GGMLQuantizationType.BF16)
        file = write_gguf(
            tmp_path / "dense.gguf",
            {
                "token_embd.weight": (bf16, GGMLQuantizationType.BF16),
                "output.weight": dense(values.astype(np.float16)),
                "output_norm.weight": dense(values[0]),
            },
        )
        checkpoint = GgufCheckpoint(file, {})
        expected = {
            "model.embed_tokens.weight": torch.tensor(values, dtype=torch.bfloat16),
            "lm_head.weight": torch.tensor(values, dtype=torch.float16),
            "model.norm.weight": torch.tensor(values[0], dtype=torch.float32),
        }
        assert checkpoint.names == expected.keys()
        for name, tensor in expected.items():
            assert checkpoint.tensor(name).dtype == tensor.dtype
            assert torch.equal(checkpoint.tensor(name), tensor)
            assert checkpoint.blocks(name) is None

    @pytest.mark.parametrize(
        ("kind", "block_bytes"),
        [(GGMLQuantizationType.Q4_K, 144), (GGMLQuantizationType.Q6_K, 210)],
    )
    def test_other_quantized_types_are_given_dense(
        self, tmp_path: Path, kind: GGMLQuantizationType, block_bytes: int
    ) -> None:
        raw = np.random.default_rng(0).integers(0, 60, (3, block_bytes), np.uint8)
        checkpoint = one_tensor(tmp_path, (raw, kind))
        assert checkpoint.blocks(DOWN) is None
        assert checkpoint.tensor(DOWN).shape == (3, 256)
        assert np.array_equal(checkpoint.tensor(DOWN).numpy(), quants.dequantize(raw, kind))

    def test_a_type_that_cannot_be_dequantized_is_named(self, tmp_path: Path) -> None:
        integers = (np.ones((2, 4), np.int32), GGMLQuantizationType.I32)
        with pytest.raises(ModelUnavailable, match=r"blk\.0\.ffn_down\.weight.*type is I32"):
            one_tensor(tmp_path, integers).tensor(DOWN)


class TestNames:
    def test_each_part_of_a_layer_has_its_hugging_face_name(self, tmp_path: Path) -> None:
        vector = dense(np.ones(8, np.float32))
        parts = {
            "blk.12.attn_norm.weight": "model.layers.12.input_layernorm.weight",
            "blk.12.attn_q.weight": "model.layers.12.self_attn.q_proj.weight",
            "blk.12.attn_q.bias": "model.layers.12.self_attn.q_proj.bias",
            "blk.12.attn_k.weight": "model.layers.12.self_attn.k_proj.weight",
            "blk.12.attn_v.bias": "model.layers.12.self_attn.v_proj.bias",
            "blk.12.attn_output.weight": "model.layers.12.self_attn.o_proj.weight",
            "blk.12.attn_q_norm.weight": "model.layers.12.self_attn.q_norm.weight",
            "blk.12.attn_k_norm.weight": "model.layers.12.self_attn.k_norm.weight",
            "blk.12.ffn_norm.weight": "model.layers.12.post_attention_layernorm.weight",
            "blk.12.ffn_gate.weight": "model.layers.12.mlp.gate_proj.weight",
            "blk.12.ffn_up.weight": "model.layers.12.mlp.up_proj.weight",
            "blk.12.ffn_down.weight": "model.layers.12.mlp.down_proj.weight",
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight",
        }
        given = {**dict.fromkeys(parts, vector), "rope_freqs.weight": vector}
        file = write_gguf(tmp_path / "names.gguf", given, "qwen3")
        assert GgufCheckpoint(file, {}).names == set(parts.values())

    @pytest.mark.parametrize(
        "name", ["blk.0.ffn_gate_exps.weight", "attn_q.weight", "blk.0.output.weight", "mystery"]
    )
    def test_a_tensor_that_has_no_place_is_refused(self, tmp_path: Path, name: str) -> None:
        file = write_gguf(tmp_path / "odd.gguf", {name: dense(np.ones(4, np.float32))})
        with pytest.raises(ModelUnavailable, match=f"no place for its tensor '{name}'"):
            GgufCheckpoint(file, {})

    def test_an_unknown_architecture_is_named_with_the_known_ones(self, tmp_path: Path) -> None:
        file = write_gguf(
            tmp_path / "m.gguf", {"output.weight": dense(np.ones(4, np.float32))}, "mamba"
        )
        with pytest.raises(ModelUnavailable, match="'mamba'; the known ones are llama, qwen2, qw"):
            GgufCheckpoint(file, {})


class TestRowsOfRotaryHeads:
    # rows 0 to 7: two query heads of four rows, one key head of eight; the first of each pair of
    # rows come first
    STORED = np.arange(8, dtype=np.float32)
    QUERIES = (0, 2, 1, 3, 4, 6, 5, 7)
    KEYS = (0, 2, 4, 6, 1, 3, 5, 7)

    def checkpoint(self, tmp_path: Path, architecture: str, heads: int = 2) -> GgufCheckpoint:
        matrix = dense(np.stack([self.STORED] * 3, axis=1))
        quantized = rows(*(half(d) + NIBBLES for d in self.STORED.tolist()), kind=Q4_0)
        tensors = {
            "blk.0.attn_q.weight": quantized,
            "blk.0.attn_q.bias": dense(self.STORED),
            "blk.0.attn_k.weight": matrix,
            "blk.0.attn_v.weight": matrix,
            "blk.0.attn_q_norm.weight": dense(self.STORED),
        }
        file = write_gguf(tmp_path / "rows.gguf", tensors, architecture, heads)
        return GgufCheckpoint(file, {})

    def test_llama_files_have_their_rows_put_back(self, tmp_path: Path) -> None:
        checkpoint = self.checkpoint(tmp_path, "llama")
        attention = "model.layers.0.self_attn."
        assert checkpoint.tensor(attention + "q_proj.bias").tolist() == [*self.QUERIES]
        assert checkpoint.tensor(attention + "k_proj.weight")[:, 2].tolist() == [*self.KEYS]
        assert checkpoint.tensor(attention + "v_proj.weight")[:, 2].tolist() == [*range(8)]
        assert checkpoint.tensor(attention + "q_norm.weight").tolist() == [*range(8)]

    def test_rows_move_in_blocks_as_in_tensors(self, tmp_path: Path) -> None:
        checkpoint = self.checkpoint(tmp_path, "llama")
        name = "model.layers.0.self_attn.q_proj.weight"
        assert carried(checkpoint, name).scales.flatten().tolist() == [*self.QUERIES]
        assert torch.equal(carried(checkpoint, name).dequantize(), checkpoint.tensor(name))

    @pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
    def test_others_are_left_as_they_are(self, tmp_path: Path, architecture: str) -> None:
        checkpoint = self.checkpoint(tmp_path, architecture)
        assert checkpoint.tensor("model.layers.0.self_attn.q_proj.bias").tolist() == [*range(8)]

    def test_rows_that_are_not_whole_pairs_are_refused(self, tmp_path: Path) -> None:
        checkpoint = self.checkpoint(tmp_path, "llama", heads=3)
        with pytest.raises(ModelUnavailable, match="8 rows are not 3 heads"):
            checkpoint.tensor("model.layers.0.self_attn.q_proj.weight")

    def test_a_file_without_heads_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailable, match=r"no usable attention\.head_count"):
            self.checkpoint(tmp_path, "llama", heads=0)


@pytest.fixture(scope="module")
def checkpoint(smollm: BaseModel) -> GgufCheckpoint:
    opened = open_checkpoint(smollm.folder, embedded_gguf())
    assert isinstance(opened, GgufCheckpoint)
    return opened


@pytest.fixture(scope="module")
def raw(smollm: BaseModel) -> dict[str, ReaderTensor]:
    """The embedded file's tensors as the gguf package reads them."""
    return {tensor.name: tensor for tensor in GGUFReader(embedded_gguf()).tensors}


@pytest.fixture(params=["ends", pytest.param("all", marks=pytest.mark.slow)])
def names(request: pytest.FixtureRequest, checkpoint: GgufCheckpoint) -> list[str]:
    """The tensors of the first and the last layer, and those outside layers; or all."""
    everything = sorted(checkpoint.names)
    if request.param == "all":
        return everything
    middle = tuple(f"model.layers.{layer}." for layer in range(1, 29))
    return [name for name in everything if not name.startswith(middle)]


class TestEmbeddedModel:
    """The real file, against the gguf package and against transformers."""

    def test_its_configuration_is_the_converted_folders(
        self, smollm: BaseModel, checkpoint: GgufCheckpoint
    ) -> None:
        assert checkpoint.config == json.loads((smollm.folder / "config.json").read_text())

    def test_every_tensor_is_the_gguf_packages(
        self, checkpoint: GgufCheckpoint, raw: dict[str, ReaderTensor], names: list[str]
    ) -> None:
        short = {
            "q_proj": "attn_q",
            "k_proj": "attn_k",
            "v_proj": "attn_v",
            "o_proj": "attn_output",
        }
        short |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
        short |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
        short |= {"embed_tokens": "token_embd", "norm": "output_norm"}
        assert len(checkpoint.names) == len(raw) == 272
        for name in names:
            words = name.split(".")
            layer = f"blk.{words[2]}." if words[1] == "layers" else ""
            tensor = raw[f"{layer}{short[words[-2]]}.weight"]
            expected = torch.tensor(quants.dequantize(tensor.data, tensor.tensor_type))
            if words[-2] in ("q_proj", "k_proj"):
                # row 32 s + i of a head of 64 is side s of pair i, which is stored as row 2 i + s
                order = [64 * h + 2 * i + s for h in range(9) for s in (0, 1) for i in range(32)]
                expected = expected[order[: len(expected)]]
            assert torch.equal(checkpoint.tensor(name), expected), name

    def test_every_tensor_is_transformers_conversion(
        self, smollm: BaseModel, checkpoint: GgufCheckpoint, names: list[str]
    ) -> None:
        converted = FolderCheckpoint(smollm.folder)
        assert converted.names == checkpoint.names
        for name in names:
            assert torch.equal(checkpoint.tensor(name).bfloat16(), converted.tensor(name)), name

    def test_every_quantized_tensor_is_carried_over_exactly(
        self, checkpoint: GgufCheckpoint, names: list[str]
    ) -> None:
        bits = []
        for name in names:
            blocks = checkpoint.blocks(name)
            if blocks is not None:
                assert torch.equal(blocks.dequantize(), checkpoint.tensor(name)), name
                bits.append(blocks.bits)
        layers = {name.split(".")[2] for name in names if name.startswith("model.layers.")}
        assert sorted(bits) == [4] * len(layers) * 7 + [8]  # seven matrices each; the embedding

    def test_a_tensor_it_does_not_hold_is_named(self, checkpoint: GgufCheckpoint) -> None:
        for read in (checkpoint.tensor, checkpoint.blocks):
            with pytest.raises(ModelUnavailable, match=r"no tensor 'lm_head\.weight'"):
                read("lm_head.weight")


class TestSpoiltGguf:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return write_gguf(
            tmp_path / "whole.gguf",
            {"blk.0.ffn_down.weight": rows(*[half(1.0) + NIBBLES] * 64, kind=Q4_0)},
        )

    def test_cut_off_anywhere_it_is_refused(self, file: Path) -> None:
        whole = file.read_bytes()
        assert GgufCheckpoint(file, {}).names == {DOWN}
        for length in [*range(0, len(whole), 37), len(whole) - 1]:
            file.write_bytes(whole[:length])
            with pytest.raises(ModelUnavailable, match="missing, truncated or not GGUF"):
                GgufCheckpoint(file, {})

    def test_an_impossible_length_of_the_vocabulary_is_refused_at_once(self, file: Path) -> None:
        whole = file.read_bytes()
        for count in (struct.pack("<IQ", 8, 3), struct.pack("<IQ", 5, 3)):  # strings, int32
            assert whole.count(count) == 1
            file.write_bytes(whole.replace(count, count[:-1] + b"\x10"))
            with pytest.raises(ModelUnavailable, match="missing, truncated or not GGUF"):
                GgufCheckpoint(file, {})

    def test_an_architecture_that_is_not_text_is_refused(self, file: Path) -> None:
        file.write_bytes(file.read_bytes().replace(b"llama", b"ll\xffma", 1))
        with pytest.raises(ModelUnavailable, match=r"general\.architecture is not text"):
            GgufCheckpoint(file, {})

    def test_missing_or_something_else_it_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "page.gguf").write_text("<html>not found</html>")
        for name in ("page.gguf", "absent.gguf"):
            with pytest.raises(ModelUnavailable, match=name):
                GgufCheckpoint(tmp_path / name, {})
