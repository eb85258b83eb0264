"""Embeddings over either engine: transformers' mean of the last hidden states, of length 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from engine.errors import EngineFailure, InvalidInput, PromptTooLong, UnknownId
from engine.models.catalogue import BaseModel
from engine.quantization import Quantization
from engine.request import EmbeddingRequest, RawPrompt
from tests.engine.conftest import StartFast
from tests.helpers import answer, ask
from tests.support.engines import STORY, Adapters, AnyEngine, TransformersPeer, end_of

TEXTS = ("sea", "The cat sat on the warm stone", STORY, "你好 👍", STORY * 12)


@pytest.fixture(scope="module")
def peer(tiny_base: BaseModel) -> TransformersPeer:
    return TransformersPeer(tiny_base)


def mean_pooled(peer: TransformersPeer, text: str) -> list[float]:
    """The mean of transformers' `last_hidden_state` over all tokens, of length 1."""
    with torch.no_grad():
        hidden = peer.model.model(**peer.tokenizer(text, return_tensors="pt")).last_hidden_state
    mean = hidden[0].mean(0)
    unit: list[float] = (mean / mean.norm()).tolist()
    return unit


def embed(engine: AnyEngine, *prompts: RawPrompt, adapter: str | None = None) -> list[list[float]]:
    found = engine.embed([EmbeddingRequest(prompt, adapter) for prompt in prompts])
    return [each.vector.tolist() for each in found]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.hypot(*one) / math.hypot(*other)


def test_embeddings_are_transformers_mean_of_the_last_hidden_states(
    engine: AnyEngine, peer: TransformersPeer
) -> None:
    expected = [pytest.approx(mean_pooled(peer, text), abs=1e-4) for text in TEXTS]
    assert [embed(engine, text)[0] for text in TEXTS] == expected
    assert embed(engine, *TEXTS) == expected, "a batch gives something else"
    ids = [tuple(peer.tokenizer(text)["input_ids"]) for text in TEXTS]
    assert len(ids[-1]) > 1200, "no text is longer than a chunk"
    assert embed(engine, *ids) == expected
    tokens = [each.prompt_tokens for each in engine.embed([EmbeddingRequest(i) for i in ids])]
    assert tokens == [len(each) for each in ids]


def test_embedding_does_not_disturb_running_answers_nor_they_it(
    engine: AnyEngine, peer: TransformersPeer
) -> None:
    expected = answer(engine, "Why?", max_new_tokens=60)
    streams = [engine.submit(ask("Why?", max_new_tokens=60)) for _ in range(3)]
    vectors = embed(engine, *TEXTS)
    assert vectors == [pytest.approx(mean_pooled(peer, text), abs=1e-4) for text in TEXTS]
    assert [end_of(stream) for stream in streams] == [expected] * 3


def test_an_adapter_changes_embeddings_and_must_be_loaded(
    engine: AnyEngine, adapters: Adapters
) -> None:
    with pytest.raises(UnknownId, match="no adapter"):
        embed(engine, "sea", adapter=adapters.a)
    engine.load_adapter(adapters.a, adapters.folder(adapters.a))
    base, tuned = embed(engine, "sea")[0], embed(engine, "sea", adapter=adapters.a)[0]
    assert cosine(base, tuned) < 0.99
    mixed = engine.embed(
        [EmbeddingRequest("sea", adapters.a), EmbeddingRequest("sea"), EmbeddingRequest("Hi")]
    )
    assert mixed[0].vector.tolist() == pytest.approx(tuned, abs=1e-4)
    assert mixed[1].vector.tolist() == pytest.approx(base, abs=1e-4)


def test_a_text_may_fill_the_context_but_not_exceed_it(engine: AnyEngine) -> None:
    context = engine.context_tokens
    [whole] = engine.embed([EmbeddingRequest((5,) * context)])
    assert whole.prompt_tokens == context
    fits, beyond = EmbeddingRequest("sea"), EmbeddingRequest((5,) * (context + 1), name="input 7")
    with pytest.raises(PromptTooLong, match=f"input 7 has {context + 1} tokens; the context"):
        engine.embed([fits, beyond])
    with pytest.raises(PromptTooLong, match="input 7 has 9000000 bytes"):
        engine.embed([replace(beyond, prompt="~" * 9_000_000)])
    with pytest.raises(InvalidInput, match="input 7 has no tokens"):
        engine.embed([replace(beyond, prompt="")])
    with pytest.raises(InvalidInput, match="input 7 has token 99999; the model has tokens"):
        engine.embed([replace(beyond, prompt=(99_999,))])


def test_quantized_weights_give_nearly_the_same_direction(
    start_fast: StartFast, quantization: Quantization, peer: TransformersPeer
) -> None:
    engine = start_fast(quantization)
    least = {"none": 0.9999, "int8": 0.999, "int4": 0.85}[quantization]
    for text, vector in zip(TEXTS, embed(engine, *TEXTS), strict=True):
        assert cosine(vector, mean_pooled(peer, text)) > least
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


def test_hidden_states_that_are_no_numbers_are_a_failure(
    start_fast: StartFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start_fast()
    real = engine.runner.run
    monkeypatch.setattr(
        engine.runner,
        "run",
        lambda chunks: replace(real(chunks), hidden=torch.full((1, 32), torch.nan)),
    )
    with pytest.raises(EngineFailure, match="not a finite number"):
        embed(engine, (5,))
