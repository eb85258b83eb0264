"""The class of a base model that is trained, and the tokenizer that trl's trainers are given.

No code of a checkpoint is run: a family is trained by transformers' class for it, or by ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from engine.config_file import read_config
from engine.models import chatglm
from engine.prompts.chatglm.renderer import ChatGLMRenderer
from engine.prompts.interface import ChatRenderer
from engine.prompts.render import Renderer


def load_causal_lm(folder: Path, **options: Any) -> PreTrainedModel:
    """The model in a folder; `options` are those of transformers' `from_pretrained`."""
    config = read_config(folder)
    loader: Any = AutoModelForCausalLM
    if config.get("model_type") in chatglm.MODEL_TYPES:
        from tuning.models.chatglm import ChatGLM2ForCausalLM, ChatGLMForCausalLM

        loader = ChatGLMForCausalLM if chatglm.is_first(config) else ChatGLM2ForCausalLM
    model: PreTrainedModel = loader.from_pretrained(folder, use_safetensors=True, **options)
    return model


def trainer_tokenizer(folder: Path, renderer: ChatRenderer) -> PreTrainedTokenizerBase:
    """The tokenizer that a trainer asks for padding; rows are rendered to token ids before.

    For a family whose tokenizer transformers does not have, it knows the padding token and the end
    token and no other.
    """
    if isinstance(renderer, Renderer):
        tokenizer: PreTrainedTokenizerBase = renderer.tokenizer
        return tokenizer
    assert isinstance(renderer, ChatGLMRenderer)
    end_id = renderer.end_id
    padding = read_config(folder).get("pad_token_id")
    padding_id = padding if isinstance(padding, int) and padding != end_id else None
    known = {"<end>": end_id} | ({} if padding_id is None else {"<padding>": padding_id})
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(known, unk_token="<end>")),  # noqa: S106 - a token
        eos_token="<end>",  # noqa: S106
        pad_token="<padding>" if padding_id is not None else "<end>",
    )
