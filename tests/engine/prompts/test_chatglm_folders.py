"""ChatGLM folders: the family that each holds, and the reason why one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelUnavailable
from engine.prompts.chatglm import is_chatglm, load_chatglm_renderer
from tests.support.chatglm_folders import (
    change_json,
    write_chatglm1,
    write_chatglm2,
    write_chatglm3,
    write_glm4,
)

WRITERS: dict[str, Callable[[Path], Path]] = {
    "chatglm1": write_chatglm1,
    "chatglm2": write_chatglm2,
    "chatglm3": write_chatglm3,
    "glm4": write_glm4,
}


@pytest.mark.parametrize(
    ("name", "settings_change", "family"),
    [
        ("/srv/models/mine", {"added_tokens_decoder": {"9": {"content": "<|observation|>"}}}, "3"),
        ("/srv/ChatGLM3-tuned", {}, "3"),
        ("/srv/chatglm2-6b-32k", {}, "2"),
    ],
)
def test_the_second_and_third_generation_are_told_apart(
    tmp_path: Path, name: str, settings_change: dict[str, Any], family: str
) -> None:
    folder = write_chatglm2(tmp_path / "model", name=name)
    change_json(folder / "tokenizer_config.json", **settings_change)
    assert type(load_chatglm_renderer(folder)).__name__ == f"ChatGLM{family}Renderer"


def test_the_name_of_the_config_and_of_the_folder_tell_the_generation(tmp_path: Path) -> None:
    folder = write_chatglm2(tmp_path / "chatglm2", name="mine")
    assert type(load_chatglm_renderer(folder)).__name__ == "ChatGLM2Renderer"
    change_json(folder / "config.json", _name_or_path="THUDM/chatglm3-6b")
    assert type(load_chatglm_renderer(folder)).__name__ == "ChatGLM3Renderer"


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", **changes)


def tokenizer_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "tokenizer_config.json", **changes)


def vocabulary(content: bytes, name: str = "tokenizer.model") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "another model": ("glm4", config(model_type="llama"), "is no ChatGLM"),
    "no config": ("glm4", without("config.json"), "cannot read .*/config.json"),
    "no settings": ("chatglm2", without("tokenizer_config.json"), "cannot read .*tokenizer_config"),
    "settings of another shape": (
        "chatglm2",
        lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
        "it is not a JSON object",
    ),
    "no first vocabulary": ("chatglm1", without("ice_text.model"), "has no ice_text.model"),
    "no vocabulary": ("chatglm3", without("tokenizer.model"), "has no tokenizer.model"),
    "noise for a vocabulary": ("chatglm3", vocabulary(b"\xffnoise"), "cannot read the vocabulary"),
    "another vocabulary": (
        "chatglm1",
        lambda folder: (folder / "ice_text.model").write_bytes(
            (write_chatglm2(folder / "other") / "tokenizer.model").read_bytes()
        ),
        "ice_text.model has no piece '<sop>'",
    ),
    "too few weights": ("chatglm2", config(padded_vocab_size=300), "do not fit a model with 300"),
    "another end": ("chatglm1", config(eos_token_id=130005), "130005] by config.json"),
    "lower case": ("chatglm1", tokenizer_config(do_lower_case=True), "do_lower_case"),
    "an odd offset": ("chatglm1", tokenizer_config(num_image_tokens="x"), "not a number"),
    "either generation": ("chatglm3", tokenizer_config(name_or_path="x"), "does not say which"),
    "no special tokens": ("glm4", tokenizer_config(added_tokens_decoder={}), r"lists no \[gMASK\]"),
    "odd special tokens": ("glm4", tokenizer_config(added_tokens_decoder={"x": 1}), "as published"),
    "shared ids": (
        "glm4",
        tokenizer_config(added_tokens_decoder={"5": {"content": "<sop>"}}),
        "share ids: <sop>",
    ),
    "a rank line that is none": ("glm4", vocabulary(b"IQ== 0\nIg== x\n"), "no list of token ranks"),
    "a rank given twice": ("glm4", vocabulary(b"IQ== 0\nIg== 0\n"), "each rank once"),
    "a missing byte": ("glm4", vocabulary(b"IQ== 0\nIg== 1\n"), "256 single bytes"),
}


@pytest.mark.parametrize("damage", REFUSED)
def test_a_damaged_folder_is_refused_with_the_reason(tmp_path: Path, damage: str) -> None:
    family, change, reason = REFUSED[damage]
    folder = WRITERS[family](tmp_path / "model")
    change(folder)
    with pytest.raises(ModelUnavailable, match=reason):
        load_chatglm_renderer(folder)


def test_only_folders_of_the_family_are_taken_for_it(tmp_path: Path) -> None:
    assert not is_chatglm(tmp_path)
    folder = write_glm4(tmp_path / "model")
    assert is_chatglm(folder)
    change_json(folder / "config.json", model_type="glm")  # what transformers reads by itself
    assert not is_chatglm(folder)
