"""The renderer that belongs to a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from engine.models.catalogue import load_tokenizer
from engine.prompts.chatglm import ChatGLMRenderer, is_chatglm, load_chatglm_renderer
from engine.prompts.render import Renderer
from engine.prompts.template_check import require_harmless

AnyRenderer = Renderer | ChatGLMRenderer


def load_renderer(folder: Path) -> AnyRenderer:
    """The renderer of the checkpoint in `folder`; raises `ModelUnavailable`."""
    if is_chatglm(folder):
        return load_chatglm_renderer(folder)
    tokenizer = load_tokenizer(folder)
    require_harmless(tokenizer.chat_template)
    return Renderer(tokenizer, _end_ids(folder) | {tokenizer.eos_token_id})


def _end_ids(folder: Path) -> frozenset[int]:
    """What the checkpoint says ends an answer: its generation configuration, else its own."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        said = json.loads(path.read_text("utf-8")).get("eos_token_id") if path.is_file() else None
        if said is not None:
            return frozenset([said] if isinstance(said, int) else said)
    return frozenset()
