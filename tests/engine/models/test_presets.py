"""What a preset says a model needs is what the model's tensors take."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from engine.models.catalogue import EMBEDDED_WHEEL, BaseModel, embedded_gguf, linear_shapes
from engine.models.presets import Preset, kv_bytes_per_token, preset, preset_weight_bytes, presets

# As published: the parameters of each checkpoint, a tied head counted once.
PUBLISHED = {
    "smollm2-135m-instruct": 134_515_008,
    "smollm2-360m-instruct": 361_821_120,
    "smollm2-1.7b-instruct": 1_711_376_384,
    "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.2-3b-instruct": 3_212_749_824,
    "llama-3.1-8b-instruct": 8_030_261_248,
    "mistral-7b-instruct-v0.3": 7_248_023_552,
    "qwen2.5-0.5b-instruct": 494_032_768,
    "qwen2.5-1.5b-instruct": 1_543_714_304,
    "qwen2.5-3b-instruct": 3_085_938_688,
    "qwen2.5-7b-instruct": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "chatglm-6b": 6_173_286_400,
    "chatglm2-6b": 6_243_584_000,
    "chatglm3-6b": 6_243_584_000,
    "glm-4-9b-chat": 9_399_951_360,
    "glm-4-9b-chat-hf": 9_399_951_360,
}


def small(**changes: Any) -> Preset:
    """Few enough weights to count by hand."""
    plain = Preset(
        name="small",
        hub_id="nobody/small",
        family="llama",
        licence="none",
        layers=2,
        hidden_size=64,
        mlp_size=96,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary=100,
        context_tokens=128,
    )
    return dataclasses.replace(plain, **changes)


class TestCounting:
    def test_matrices_tables_and_vectors_by_hand(self) -> None:
        # q and o are 64 x 64, k and v 32 x 64, the three of the MLP 96 x 64
        assert small().linear_weights == 2 * (2 * 4096 + 2 * 2048 + 3 * 6144)
        assert small().table_weights == 2 * 6400  # embedding and head, 100 x 64 each
        assert small().vector_weights == 5 * 64  # two norms in each layer, one after them
        assert small().parameters == 61_440 + 12_800 + 320

    def test_a_tied_head_is_held_once(self) -> None:
        assert small(tied_head=True).table_weights == 6400

    def test_an_mlp_without_a_gate_has_two_matrices(self) -> None:
        assert small(gated_mlp=False).linear_weights == 2 * (2 * 4096 + 2 * 2048 + 2 * 6144)

    def test_biases_and_norms_of_heads(self) -> None:
        assert small(biases="qkv").vector_weights == 320 + 2 * (64 + 32 + 32)
        assert small(head_norms=True).vector_weights == 320 + 2 * (16 + 16)
        # also on o, on the gate and the two others of the MLP, and in each norm
        everywhere = 2 * 320 + 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64)
        assert small(biases="all").vector_weights == everywhere

    def test_bytes_by_hand(self) -> None:
        # 61440 weights in matrices, 12800 in tables, 320 in vectors
        assert preset_weight_bytes(small(), "none") == 2 * (61_440 + 12_800 + 320)
        assert preset_weight_bytes(small(), "int8") == 61_440 * 34 // 32 + 12_800 * 34 // 32 + 640
        assert preset_weight_bytes(small(), "int4") == 61_440 * 20 // 32 + 12_800 * 34 // 32 + 640

    def test_keys_and_values_of_a_token_by_hand(self) -> None:
        # a key and a value of 2 x 16 in each of 2 layers, two bytes each
        assert kv_bytes_per_token(small()) == 2 * 2 * 32 * 2
        assert kv_bytes_per_token(small(), value_bytes=4) == 2 * kv_bytes_per_token(small())


class TestKnownPresets:
    def test_each_has_the_parameters_it_was_published_with(self) -> None:
        assert {name: known.parameters for name, known in presets().items()} == PUBLISHED

    @pytest.mark.parametrize("known", presets().values(), ids=lambda known: known.name)
    def test_each_is_consistent(self, known: Preset) -> None:
        assert known.name == known.hub_id.split("/")[1].lower()
        assert known.heads % known.kv_heads == 0
        assert known.hidden_size % 32 == 0 and known.mlp_size % 32 == 0  # whole groups
        assert (
            preset_weight_bytes(known, "int4")
            < preset_weight_bytes(known, "int8")
            < preset_weight_bytes(known, "none")
            == 2 * known.parameters
        )

    def test_found_by_name_or_by_hub_id(self) -> None:
        found = preset("qwen3-0.6b")
        assert found is not None and found.hub_id == "Qwen/Qwen3-0.6B"
        assert preset("Qwen/Qwen3-0.6B") is found

    @pytest.mark.parametrize("name", ["", "qwen3", "embedded", "Qwen3-0.6B", "../presets"])
    def test_any_other_name_is_none(self, name: str) -> None:
        assert preset(name) is None

    def test_the_table_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            presets()["mine"] = small()  # type: ignore[index]


class TestAgainstTheEmbeddedModel:
    @pytest.mark.skipif(
        importlib.util.find_spec(EMBEDDED_WHEEL) is None, reason=f"needs the wheel {EMBEDDED_WHEEL}"
    )
    def test_int4_bytes_are_those_of_the_embedded_file(self) -> None:
        known = preset("smollm2-135m-instruct")
        assert known is not None
        held = embedded_gguf().stat().st_size  # the vocabulary's text makes up the difference
        assert preset_weight_bytes(known, "int4") == pytest.approx(held, rel=0.03)

    def test_its_matrices_are_those_of_the_real_model(self, smollm: BaseModel) -> None:
        shapes = linear_shapes(smollm.folder).values()
        known = preset("HuggingFaceTB/SmolLM2-135M-Instruct")
        assert known is not None
        assert known.linear_weights == sum(rows * columns for rows, columns in shapes)


def test_reading_the_presets_needs_no_torch() -> None:
    code = "import sys; from engine.models.presets import presets; presets(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "gguf"}.isdisjoint(done.stdout.split())
