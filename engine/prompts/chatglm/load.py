"""The loading of a renderer from a folder in published layout.

Knows how the four families differ on disk. Reads JSON and vocabularies; runs no code of the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from engine.config_file import read_config, read_json_object
from engine.errors import ModelUnavailable
from engine.prompts.chatglm.chatglm1 import ChatGLM1Renderer, ChatGLM1Tokenizer
from engine.prompts.chatglm.chatglm2 import ChatGLM2Renderer, ChatGLM2Tokenizer
from engine.prompts.chatglm.chatglm3 import ChatGLM3Renderer, ChatGLM3Tokenizer
from engine.prompts.chatglm.glm4 import GLM4Renderer, GLM4Tokenizer, read_ranks
from engine.prompts.chatglm.pieces import SentencePieces
from engine.prompts.chatglm.renderer import ChatGLMRenderer

ChatGLMFamily = Literal["chatglm1", "chatglm2", "chatglm3", "glm4"]
FIRST_VOCABULARY, VOCABULARY = "ice_text.model", "tokenizer.model"
RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
GENERATION = re.compile(r"chatglm([23])", re.IGNORECASE)
ROLE_TOKEN = "<|observation|>"  # noqa: S105 - only the third generation has it
# The ids that the published ChatGLM-6B tokenizer reserves for images unless its settings differ
DEFAULT_IMAGE_TOKENS = 20_000
REMEDY = 'set "name_or_path" in tokenizer_config.json to THUDM/chatglm2-6b or THUDM/chatglm3-6b'


def is_chatglm(folder: Path) -> bool:
    """Return whether `model_type` in config.json is "chatglm", whatever else the folder has."""
    try:
        return bool(read_config(folder).get("model_type") == "chatglm")
    except ModelUnavailable:
        return False


def load_chatglm_renderer(folder: Path) -> ChatGLMRenderer:
    """The renderer of a checkpoint in published layout, by its `chatglm_family_of`.

    Raises `ModelUnavailable` with the reason: another model, a missing or unreadable file, tokens
    that the vocabulary lacks, a vocabulary that does not fit the weights.
    """
    config = read_config(folder)
    if config.get("model_type") != "chatglm":
        raise ModelUnavailable(f"{folder} is no ChatGLM: model_type {config.get('model_type')!r}")
    settings = read_json_object(folder / "tokenizer_config.json")
    renderer = LOADERS[chatglm_family_of(folder, config, settings)](folder, settings)
    _check_fit(folder, config, renderer)
    return renderer


def chatglm_family_of(
    folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> ChatGLMFamily:
    """The family of a folder.

    1. Without `padded_vocab_size` in config.json, or with `ice_text.model` and no
       `tokenizer.model`: ChatGLM-6B.
    2. If `tokenizer.model` is a list of ranks in base64: GLM-4. (`rope_ratio` proves nothing:
       long-context versions of ChatGLM2 and ChatGLM3 have it, the GLM-4 base does not.)
    3. Else it is SentencePiece, and ChatGLM2 and ChatGLM3 may differ in their chat format alone.
       The token `<|observation|>` in tokenizer_config.json means ChatGLM3. Else the first of these
       that says chatglm2 or chatglm3 decides: `name_or_path` in tokenizer_config.json,
       `_name_or_path` in config.json, the name of the folder.

    Raises `ModelUnavailable` if none of these decides, since a guess could spoil every answer.
    """
    if "padded_vocab_size" not in config:
        return "chatglm1"
    if not (folder / VOCABULARY).is_file():
        if (folder / FIRST_VOCABULARY).is_file():
            return "chatglm1"
        raise ModelUnavailable(f"{folder} has no {VOCABULARY}")
    if RANK_LINE.match((folder / VOCABULARY).read_bytes()[:4096]):
        return "glm4"
    if ROLE_TOKEN in json.dumps(settings):
        return "chatglm3"
    names = (settings.get("name_or_path"), config.get("_name_or_path"), folder.name)
    for name in names:
        found = GENERATION.search(str(name))
        if found:
            return "chatglm2" if found[1] == "2" else "chatglm3"
    raise ModelUnavailable(f"{folder} may be ChatGLM2 or ChatGLM3; it does not say which: {REMEDY}")


def _load_chatglm1(folder: Path, settings: Mapping[str, Any]) -> ChatGLMRenderer:
    changed = [name for name in ("do_lower_case", "remove_space") if settings.get(name)]
    if changed:
        raise ModelUnavailable(f"{folder}: {' and '.join(changed)} in tokenizer_config.json are on")
    image_tokens = settings.get("num_image_tokens", DEFAULT_IMAGE_TOKENS)
    if not isinstance(image_tokens, int) or image_tokens < 0:
        raise ModelUnavailable(f"{folder}: num_image_tokens is {image_tokens!r}, not a number")
    tokenizer = ChatGLM1Tokenizer(_pieces(folder, FIRST_VOCABULARY), image_tokens)
    return ChatGLM1Renderer(tokenizer)


def _load_chatglm2(folder: Path, settings: Mapping[str, Any]) -> ChatGLMRenderer:
    tokenizer = ChatGLM2Tokenizer(_pieces(folder, VOCABULARY))
    return ChatGLM2Renderer(tokenizer)


def _load_chatglm3(folder: Path, settings: Mapping[str, Any]) -> ChatGLMRenderer:
    tokenizer = ChatGLM3Tokenizer(_pieces(folder, VOCABULARY))
    return ChatGLM3Renderer(tokenizer)


def _load_glm4(folder: Path, settings: Mapping[str, Any]) -> ChatGLMRenderer:
    try:
        added = settings.get("added_tokens_decoder", {}).items()
        special_ids = {str(token["content"]): int(token_id) for token_id, token in added}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelUnavailable(f"{folder}: added_tokens_decoder is not as published") from error
    ranks = read_ranks(folder / VOCABULARY)
    taken = [name for name, token_id in special_ids.items() if token_id < len(ranks)]
    if taken or len(set(special_ids.values())) < len(special_ids):
        raise ModelUnavailable(f"{folder}: special tokens share ids: {', '.join(taken)}")
    tokenizer = GLM4Tokenizer(ranks, special_ids)
    return GLM4Renderer(tokenizer)


LOADERS = {
    "chatglm1": _load_chatglm1,
    "chatglm2": _load_chatglm2,
    "chatglm3": _load_chatglm3,
    "glm4": _load_glm4,
}


def _check_fit(folder: Path, config: Mapping[str, Any], renderer: ChatGLMRenderer) -> None:
    """Refuse a vocabulary that is not that of the weights."""
    rows = config.get("padded_vocab_size", config.get("vocab_size"))
    if not isinstance(rows, int) or rows < renderer.token_count:
        raise ModelUnavailable(
            f"{folder}: {renderer.token_count} tokens do not fit a model with {rows} ids"
        )
    ends = config.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    if ends is not None and not renderer.end_ids.intersection(listed):
        raise ModelUnavailable(
            f"{folder}: answers end with {sorted(renderer.end_ids)} by the tokenizer, "
            f"with {listed} by config.json"
        )


def _pieces(folder: Path, name: str) -> SentencePieces:
    if not (folder / name).is_file():
        raise ModelUnavailable(f"{folder} has no {name}")
    return SentencePieces(folder / name)
