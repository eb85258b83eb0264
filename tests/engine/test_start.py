"""The fast engine where it has a decoder, the reference engine for everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from engine.errors import ModelUnavailable
from engine.local import LocalEngine
from engine.models.catalogue import BaseModel, resolve
from engine.reference import ReferenceEngine
from engine.start import EngineKind, engine_kind, start_engine
from tests.helpers import answer, write_tiny_model


def tiny_neox(vocabulary: int) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    return GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256,
    ), GPTNeoXForCausalLM  # fmt: skip


def tiny_bloom(vocabulary: int) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    return BloomConfig(
        vocab_size=vocabulary, hidden_size=32, n_layer=2, n_head=4, max_position_embeddings=256
    ), BloomForCausalLM  # fmt: skip


STARTED: dict[str, Any] = {"quantization": "none", "max_rows": 2, "max_queue": 4}


class TestStart:
    def test_a_family_with_a_decoder_gets_the_fast_engine_unless_told_otherwise(
        self, tiny_base: BaseModel, model_cache: Path
    ) -> None:
        assert engine_kind(tiny_base, "auto") == "local"
        kinds: tuple[tuple[EngineKind, type], ...] = (
            ("auto", LocalEngine),
            ("local", LocalEngine),
            ("reference", ReferenceEngine),
        )
        for kind, expected in kinds:
            engine = start_engine(tiny_base, kind=kind, model_cache=model_cache, **STARTED)
            assert type(engine) is expected
            assert answer(engine, "Why?", max_new_tokens=3).text
            engine.close()

    @pytest.mark.parametrize("make", [tiny_neox, tiny_bloom])
    def test_any_other_architecture_gets_the_reference_engine_and_answers(
        self,
        make: Callable[[int], tuple[PretrainedConfig, type[PreTrainedModel]]],
        tmp_path: Path,
        model_cache: Path,
    ) -> None:
        write_tiny_model(tmp_path / "model", context_tokens=256)  # for its tokenizer
        vocabulary = json.loads((tmp_path / "model/config.json").read_text())["vocab_size"]
        config, model = make(vocabulary)
        config.eos_token_id = config.bos_token_id = config.pad_token_id = None
        torch.manual_seed(0)
        model(config).save_pretrained(tmp_path / "model")
        base = resolve(str(tmp_path / "model"), tmp_path / "cache")
        assert engine_kind(base, "auto") == "reference"
        engine = start_engine(base, model_cache=model_cache, **STARTED)
        assert type(engine) is ReferenceEngine
        assert answer(engine, "Why?", max_new_tokens=5, ignore_eos=True).completion_tokens == 5
        engine.close()
        with pytest.raises(ModelUnavailable, match="no decoder for model type"):
            start_engine(base, kind="local", model_cache=model_cache, **STARTED)
