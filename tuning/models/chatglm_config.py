"""The configuration of a ChatGLM in its published layout, as transformers and peft read one."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig

from engine.models.architecture import Architecture
from engine.models.chatglm import published_architecture


class ChatGLMConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """A published config.json, with its sizes under transformers' names as well."""

    model_type = "chatglm"

    def __post_init__(self, **published: Any) -> None:
        super().__post_init__(**published)
        architecture = self.architecture
        decoder = architecture.config
        self.hidden_size = decoder.hidden_size
        self.num_hidden_layers = decoder.layer_count
        self.num_attention_heads = decoder.heads.query
        self.num_key_value_heads = decoder.heads.kv
        self.head_dim = decoder.heads.dim
        self.intermediate_size = architecture.layout.layers[0].down.in_features
        self.vocab_size = decoder.vocabulary
        self.tie_word_embeddings = architecture.layout.tied

    @property
    def architecture(self) -> Architecture:
        """The same as our decoder reads it."""
        with torch.device("cpu"):  # transformers makes a model's modules on the meta device first
            return published_architecture(vars(self))
