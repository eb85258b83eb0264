"""ChatGLM's tokenizers and chat formats against what the published code computed."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.messages import Message
from engine.prompts.chatglm import is_chatglm, load_chatglm_renderer
from tests.support.chatglm_folders import change_json, shown

BESIDE = Path(__file__).parents[4] / "shared" / "oracles"


ORACLES = Path(os.environ.get("BURNISH_ORACLES") or BESIDE)


FOLDERS = ("chatglm1", "chatglm2", "chatglm3", "glm4_9b_chat_layout")


@functools.cache
def published(name: str) -> tuple[Any, Any]:
    """(the renderer of an oracle's folder, what the published code makes of texts and ids)."""
    folder = ORACLES / name
    if not (folder / "tokenizer_oracle.json").is_file():
        pytest.skip(f"needs the oracle folder {name} in {ORACLES.name} (BURNISH_ORACLES)")
    assert is_chatglm(folder)
    oracle = json.loads((folder / "tokenizer_oracle.json").read_text("utf-8"))
    return load_chatglm_renderer(folder), oracle


def in_rounds(case: Any) -> list[Message]:
    said = [m for q, a in case["history"] for m in (Message("user", q), Message("assistant", a))]
    return [*said, Message("user", case["query"])]


@pytest.mark.parametrize("name", FOLDERS)
def test_texts_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    tokenizer = renderer.tokenizer
    for case in oracle["encode"]:
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
        plain = tokenizer.encode(case["text"], add_special_tokens=False)
        assert plain == case["ids_no_special"], case["text"]
        assert tokenizer.encode_text(case["text"]) == case["inner_encode"], case["text"]


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_have_the_published_text(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["encode"] + oracle.get("encode_special_tokens_true", []):
        decode = renderer.tokenizer.decode
        assert decode(case["ids"]) == case["decoded"]
        assert decode(case["ids_no_special"]) == case["decoded_no_special_ids"]
    for case in oracle["decode"]:
        assert renderer.tokenizer.decode(case["ids"]) == case["decoded"]


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_have_the_published_text_without_special_tokens(name: str) -> None:
    renderer, oracle = published(name)
    decode = renderer.tokenizer.decode
    if name in ("chatglm1", "glm4_9b_chat_layout"):
        decode = functools.partial(decode, skip_special_tokens=True)
    for case in oracle["encode"] + oracle["decode"] + oracle.get("encode_special_tokens_true", []):
        assert decode(case["ids"]) == case["decoded_skip_special_tokens"]


@pytest.mark.parametrize("name", FOLDERS)
def test_special_tokens_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    tokenizer, special = renderer.tokenizer, oracle["special_ids"]
    assert tokenizer.vocab_size == oracle["len"]
    if name == "chatglm1":
        attrs = oracle["attrs"]
        for kind in ("bos", "eos", "pad", "gmask"):
            assert getattr(tokenizer, f"{kind}_id") == attrs[kind]
        assert renderer.end_ids == {attrs["eos"]}
    else:
        assert tokenizer.prefix == oracle["prefix_tokens"]
        known = {**tokenizer.special_ids, "<bos>": 1, "<eos>": 2, "<pad>": 0}
        assert {name: known[name] for name in special} == special
        assert oracle["attrs"]["eos"] in renderer.end_ids


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2"])
def test_conversations_in_rounds_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["chat"]:
        assert list(renderer.prompt(in_rounds(case))) == case["ids"]
        assert renderer.tokenizer.encode(case["prompt"]) == case["ids"]


def test_chatglm3_conversations_have_the_published_ids() -> None:
    renderer, oracle = published("chatglm3")
    for case in oracle["chat"]:
        said = [*case["history"], {"role": case["role"], "content": case["query"]}]
        if not any("tools" in m or m.get("metadata") for m in said):
            messages = [Message(m["role"], m["content"]) for m in said]
            assert list(renderer.prompt(messages)) == case["ids"]
        ids = [*renderer.tokenizer.prefix]
        for m in said:
            content = m["content"]
            if "tools" in m:
                content += "\n" + json.dumps(m["tools"], indent=4, ensure_ascii=False)
            ids += renderer.tokenizer.message(m["role"], content, m.get("metadata", ""))
        assert [*ids, renderer.tokenizer.special_ids["<|assistant|>"]] == case["ids"]
        assert renderer.tokenizer.decode(case["ids"]) == case["decoded"]
    assert renderer.end_ids == set(oracle["eos_ids_in_chat"])


def test_glm4_conversations_have_the_published_ids() -> None:
    renderer, oracle = published("glm4_9b_chat_layout")
    tokenizer = renderer.tokenizer
    for case in oracle["chat"]:
        if all(m["role"] != "observation" for m in case["messages"]):
            messages = [Message(m["role"], m["content"]) for m in case["messages"]]
            assert list(renderer.prompt(messages)) == case["ids"]
        said = [tokenizer.message(m["role"], m["content"], m["metadata"]) for m in case["messages"]]
        opened = [*tokenizer.prefix, *(i for ids in said for i in ids)]
        assert [*opened, tokenizer.special_ids["<|assistant|>"]] == case["ids"]
        whole = tokenizer.encode(case["text"], add_special_tokens=False)
        assert whole == case["ids"]
        text = case["text_without_generation_prompt"]
        assert tokenizer.encode(text, add_special_tokens=False) == opened


@pytest.mark.parametrize("name", ["chatglm3", "glm4_9b_chat_layout"])
def test_single_messages_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["single_messages"]:
        ids = renderer.tokenizer.message(case["role"], case["message"], case["metadata"])
        assert ids == case["ids"]


def test_role_tokens_in_text_have_the_published_ids_where_they_are_asked_for() -> None:
    renderer, oracle = published("chatglm3")
    for case in oracle["encode_special_tokens_true"]:
        ids = renderer.tokenizer.encode_roles(case["text"])
        assert ids == case["ids_no_special"]
        assert renderer.tokenizer.prefix + ids == case["ids"]


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2"])
def test_a_pair_of_texts_has_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    case = oracle["encode_pair"]
    ids = [*renderer.tokenizer.encode(case["a"]), *renderer.completion(case["b"])]
    assert ids == case["ids"]


def test_chatglm1_pads_as_published() -> None:
    renderer, oracle = published("chatglm1")
    batch = oracle["padded_batch"]
    rows = [renderer.tokenizer.encode(text) for text in batch["texts"]]
    longest = max(map(len, rows))
    padded = [[renderer.tokenizer.pad_id] * (longest - len(row)) + row for row in rows]
    assert padded == batch["input_ids"]


def test_chatglm1_leaves_room_for_images_as_published(tmp_path: Path) -> None:
    _, oracle = published("chatglm1")
    for name in ("config.json", "tokenizer_config.json", "ice_text.model"):
        (tmp_path / name).write_bytes((ORACLES / "chatglm1" / name).read_bytes())
    change_json(tmp_path / "config.json", vocab_size=620, eos_token_id=265)
    change_json(tmp_path / "tokenizer_config.json", num_image_tokens=20)
    renderer: Any = load_chatglm_renderer(tmp_path)
    tokenizer = renderer.tokenizer
    for case in oracle["with_num_image_tokens_20"]:
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        if "text" not in case:
            assert renderer.decode(case["ids"]) == " 你好"  # the images are left out
            continue
        assert tokenizer.encode(case["text"]) == case["ids"]
        plain = tokenizer.encode(case["text"], add_special_tokens=False)
        assert plain == case["ids_no_special"]
        assert tokenizer.decode(plain) == case["decoded_no_special_ids"]
        shown = tokenizer.decode(case["ids"], skip_special_tokens=True)
        assert shown == case["decoded_skip_special_tokens"]


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2", "chatglm3"])
def test_answers_are_cleaned_up_as_published(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["process_response"]:
        out = case.get("out", case.get("content"))
        if isinstance(out, str):  # else a call of a tool, and no tools are offered here
            assert renderer.clean_answer(case["inp"]) == out


@pytest.mark.parametrize("name", FOLDERS)
def test_the_oracles_texts_stream_as_they_decode(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["encode"]:
        ids = renderer.completion("x" + case["text"], complete=False)
        assert "".join(shown(renderer.detokenizer(), ids)) == renderer.decode(ids).lstrip("\n ")
