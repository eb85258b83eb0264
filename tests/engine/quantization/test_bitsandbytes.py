"""Quantized weights through bitsandbytes, on the CPU: the same path a CUDA device takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.quantization import Quantization
from engine.reference import ReferenceEngine
from engine.request import ScoreRequest
from engine.storage import folder_of
from tests.helpers import make_bundle

pytestmark = pytest.mark.integration

SENTENCE = ScoreRequest(
    (Message("user", "Why is the sky blue?"),),
    "The sky looks blue because air scatters blue light more than red light.",
)

MOST_NATS = 0.5  # a token; wrong scales or a wrong layout are off by many


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantized_weights_say_nearly_the_same_and_carry_adapters(
    smollm: BaseModel, tmp_path: Path, quantization: Quantization
) -> None:
    dense = ReferenceEngine(smollm)
    expected = dense.score([SENTENCE])[0].per_token
    dense.close()
    engine = ReferenceEngine(smollm, quantization=quantization)
    base = engine.score([SENTENCE])[0]
    assert base.per_token == pytest.approx(expected, abs=MOST_NATS)
    assert base.per_token != expected  # it really is quantized
    digest = make_bundle(tmp_path, smollm, scale=0.02)
    engine.load_adapter(digest, folder_of(tmp_path, digest))
    adapted = ScoreRequest(SENTENCE.messages, SENTENCE.completion, digest)
    assert engine.score([adapted])[0] != base
    assert engine.score([SENTENCE])[0] == base
    engine.unload_adapter(digest)
    assert engine.score([SENTENCE])[0] == base
    engine.close()
