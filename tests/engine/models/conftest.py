"""A tiny model, to be written as a GGUF file."""

from __future__ import annotations

import pytest
from torch import nn

from tests.support.gguf_files import SIZES, model_of


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """A tiny LLaMA without any setting that is out of the ordinary."""
    from transformers import LlamaConfig

    return model_of(LlamaConfig(**SIZES))
