"""The tokens that end an answer, as a GGUF file names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from engine.models.catalogue import resolve
from engine.prompts.load import load_renderer
from tests.support.gguf_files import ENDOFTEXT, IM_END, write_gguf_model

END_TOKENS: dict[str, tuple[dict[str, Any], set[int]]] = {
    "an end of turn alone": ({"eos_token_id": None, "eot_token_id": 3}, {3}),
    "a list": ({"eos_token_id": ENDOFTEXT, "eog_token_ids": [3, 4]}, {ENDOFTEXT, 3, 4}),
    "a list alone": ({"eos_token_id": None, "eog_token_ids": [4]}, {4}),
    "one token twice": ({"eos_token_id": 3, "eog_token_ids": [3]}, {3}),
}


@pytest.mark.parametrize("name", END_TOKENS)
def test_each_token_that_the_file_says_ends_an_answer_does(
    tmp_path: Path, plain: nn.Module, name: str
) -> None:
    said, expected = END_TOKENS[name]
    metadata = {f"tokenizer.ggml.{key}": value for key, value in said.items()}
    file = write_gguf_model(tmp_path / "m.gguf", plain, metadata)
    folder = resolve(str(file), tmp_path / "cache").folder
    found = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert ({found} if isinstance(found, int) else set(found)) == expected


def test_a_file_that_names_no_end_token_gets_none_from_elsewhere(
    tmp_path: Path, plain: nn.Module
) -> None:
    file = write_gguf_model(tmp_path / "m.gguf", plain, {"tokenizer.ggml.eos_token_id": None})
    folder = resolve(str(file), tmp_path / "cache").folder
    for name in ("config.json", "generation_config.json"):
        assert json.loads((folder / name).read_text()).get("eos_token_id") is None


@pytest.mark.parametrize("key", ["eot", "eom"])
def test_an_end_of_turn_token_ends_an_answer(tmp_path: Path, plain: nn.Module, key: str) -> None:
    metadata = {
        "tokenizer.ggml.eos_token_id": ENDOFTEXT,
        f"tokenizer.ggml.{key}_token_id": 3,
        # a template whose own end of turn is no special token
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}\n{% endfor %}",
    }
    file = write_gguf_model(tmp_path / "m.gguf", plain, metadata)
    folder = resolve(str(file), tmp_path / "cache").folder
    assert load_renderer(folder).end_ids == {ENDOFTEXT, 3}


def test_the_templates_end_of_turn_ends_an_answer(tmp_path: Path, plain: nn.Module) -> None:
    file = write_gguf_model(tmp_path / "m.gguf", plain, {"tokenizer.ggml.eos_token_id": ENDOFTEXT})
    renderer = load_renderer(resolve(str(file), tmp_path / "cache").folder)
    assert renderer.end_ids == {ENDOFTEXT, IM_END}
    assert renderer.completion("x")[-1] == IM_END  # what training teaches
