"""The fast engine where it has a decoder, the reference engine for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.fast import FastEngine
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from engine.start import EngineKind, engine_kind, start_engine
from tests.helpers import answer

STARTED: dict[str, Any] = {"quantization": "none", "max_rows": 2, "max_queue": 4}


class TestStart:
    def test_a_family_with_a_decoder_gets_the_fast_engine_unless_told_otherwise(
        self, tiny_base: BaseModel, model_cache: Path
    ) -> None:
        assert engine_kind(tiny_base, "auto") == "local"
        kinds: tuple[tuple[EngineKind, type], ...] = (
            ("auto", FastEngine),
            ("local", FastEngine),
            ("reference", ReferenceEngine),
        )
        for kind, expected in kinds:
            engine = start_engine(tiny_base, kind=kind, model_cache=model_cache, **STARTED)
            assert type(engine) is expected
            assert answer(engine, "Why?", max_new_tokens=3).text
            engine.close()
