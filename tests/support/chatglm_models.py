"""Tiny whole checkpoints of the ChatGLM family: random weights with a vocabulary that fits them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from engine.prompts.chatglm.chatglm1 import ChatGLM1Renderer
from engine.prompts.chatglm.load import load_chatglm_renderer
from tests.support.chatglm_folders import (
    change_json,
    write_chatglm1,
    write_chatglm2,
    write_chatglm3,
    write_glm4,
)
from tests.support.chatglm_weights import write_chatglm1_weights, write_chatglm2_weights

CONTEXT_TOKENS = 2048  # the gate's own questions have hundreds of characters, each a token here
WRITERS: dict[str, Callable[[Path], Path]] = {
    "chatglm1": write_chatglm1,
    "chatglm2": write_chatglm2,
    "chatglm3": write_chatglm3,
    "glm4": write_glm4,
}


def write_tiny_chatglm(folder: Path, family: str, seed: int = 0) -> None:
    """A checkpoint of two layers in the published layout of a family (one of `WRITERS`)."""
    WRITERS[family](folder)
    config = json.loads((folder / "config.json").read_text())
    renderer = load_chatglm_renderer(folder)
    if isinstance(renderer, ChatGLM1Renderer):
        tokenizer = renderer.tokenizer
        write_chatglm1_weights(
            folder,
            heads=4,
            hidden=64,
            inner=96,
            layers=2,
            eps=1e-5,
            vocabulary=config["vocab_size"],
            seed=seed,
            bos_token_id=tokenizer.bos_id,
            eos_token_id=tokenizer.eos_id,
            gmask_token_id=tokenizer.gmask_id,
            mask_token_id=tokenizer.gmask_id - 1,
            pad_token_id=tokenizer.pad_id,
        )
        change_json(folder / "config.json", max_sequence_length=CONTEXT_TOKENS)
    else:
        write_chatglm2_weights(folder, inner=96, vocabulary=config["padded_vocab_size"], seed=seed)
        ids = {"eos_token_id": renderer.end_id, "pad_token_id": 0}
        change_json(folder / "config.json", seq_length=CONTEXT_TOKENS, **ids)
