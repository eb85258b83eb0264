"""`/v1/embeddings` through a real server, by OpenAI's own client and LangChain's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from app.answering.embeddings import TEXTS_AT_ONCE, Embeddings
from engine.errors import ShuttingDown
from engine.models.catalogue import BaseModel
from engine.request import EmbeddingRequest
from tests.app.conftest import Shared
from tests.helpers import make_bundle

TEXTS = ["The cat sat on the warm stone.", "sea", "你好 👍"]


@pytest.fixture
def client(shared: Shared) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def of_engine(shared: Shared, texts: list[Any]) -> list[Any]:
    """What the engine itself gives; `test_embeddings` of the engine compares transformers."""
    found = shared.service.engine.embed([EmbeddingRequest(text) for text in texts])
    return [pytest.approx(each.vector.tolist(), abs=1e-5) for each in found]


def test_vectors_are_the_engines_in_either_encoding_with_their_usage(
    client: openai.OpenAI, shared: Shared
) -> None:
    expected = of_engine(shared, TEXTS)
    answers = [
        client.embeddings.create(model="base", input=TEXTS, encoding_format="float"),
        client.embeddings.create(model="base", input=TEXTS, encoding_format="base64"),
        client.embeddings.create(model="base", input=TEXTS),  # the client's own choice
    ]
    assert isinstance(answers[1].data[0].embedding, str)
    for answer in (answers[0], answers[2]):
        assert [each.embedding for each in answer.data] == expected
        assert [each.index for each in answer.data] == [0, 1, 2]
        assert math.hypot(*answer.data[0].embedding) == pytest.approx(1)
    tokens = sum(
        e.prompt_tokens for e in shared.service.engine.embed([EmbeddingRequest(t) for t in TEXTS])
    )
    assert answers[0].usage.prompt_tokens == answers[0].usage.total_tokens == tokens


def test_texts_may_be_one_or_token_ids(client: openai.OpenAI, shared: Shared) -> None:
    [one] = client.embeddings.create(model="base", input="sea").data
    assert one.embedding == of_engine(shared, ["sea"])[0]
    [ids] = client.embeddings.create(model="base", input=[5, 6, 7]).data
    both = client.embeddings.create(model="base", input=[[5, 6, 7], [8]]).data
    assert [ids.embedding, both[1].embedding] == of_engine(shared, [(5, 6, 7), (8,)])
    assert both[0].embedding == pytest.approx(ids.embedding, abs=1e-5)


def test_many_texts_come_in_their_order(client: openai.OpenAI, shared: Shared) -> None:
    words = [f"sea {number}" for number in range(2 * TEXTS_AT_ONCE + 5)]
    data = client.embeddings.create(model="base", input=words).data
    assert [each.embedding for each in data] == of_engine(shared, words)


def test_langchain_reads_them(shared: Shared) -> None:
    settings: dict[str, Any] = {
        "base_url": f"{shared.url}/v1",
        "api_key": SecretStr("none"),
        "model": "base",
        "check_embedding_ctx_length": False,  # else it sends the ids of OpenAI's own tokenizer
    }
    embeddings = OpenAIEmbeddings(**settings)
    assert embeddings.embed_documents(TEXTS) == of_engine(shared, TEXTS)
    assert embeddings.embed_query("sea") == of_engine(shared, ["sea"])[0]


def test_a_release_embeds_in_its_own_way(
    client: openai.OpenAI, shared: Shared, tiny_base: BaseModel
) -> None:
    release = make_bundle(shared.service.workspace.home.bundles, tiny_base, seed=3)
    base, tuned = (
        client.embeddings.create(model=model, input="sea").data[0].embedding
        for model in ("base", release)
    )
    assert base != pytest.approx(tuned, abs=0.01)


def test_nothing_is_stored(client: openai.OpenAI, shared: Shared) -> None:
    before = shared.service.workspace.store.counts()
    client.embeddings.create(model="base", input=TEXTS)
    assert shared.service.workspace.store.counts() == before


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"input": None}, 400, "input: Field required"),
        ({"input": []}, 400, "input is an empty list"),
        ({"input": ""}, 400, "input 0 has no tokens"),
        ({"input": ["a", ""]}, 400, "input 1 has no tokens"),
        ({"input": [{"text": "a"}]}, 400, "input must be a text, a list of texts"),
        ({"input": ["a"] * 2049}, 400, "input has 2049 texts; at most 2048"),
        ({"input": [[5], [10**6]]}, 400, "input 1 has token 1000000"),
        ({"input": ["a", [5] * 2049]}, 413, "input 1 has 2049 tokens; the context holds 2048"),
        ({"input": ["a"] * 40 + ["~" * 500_000]}, 413, "input 40 has 500000 bytes of text"),
        ({"input": "\x00"}, 422, "input 0 contains a NUL character"),
        ({"input": "a", "dimensions": 8}, 400, "dimensions is not supported"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format: Input should be"),
        ({"input": "a", "model": "sha256:0000"}, 404, "0 ids under bundles/ start with 0000"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    shared: Shared, asked: dict[str, Any], status: int, said: str
) -> None:
    response = httpx.post(f"{shared.url}/v1/embeddings", json=asked, timeout=60)
    assert response.status_code == status, response.text
    assert said in response.json()["error"]["message"]


def test_who_leaves_and_who_shuts_down_waits_for_no_more_than_one_group(shared: Shared) -> None:
    service = shared.service
    many = ["sea"] * 3 * TEXTS_AT_ONCE
    embeddings = Embeddings(service.engine, service.completions._answering)
    looks = iter((False, True))
    found = embeddings.embed("ann", many, is_abandoned=lambda: next(looks))
    assert len(found) == TEXTS_AT_ONCE

    def stop() -> bool:
        service.chat.running.stop_all()
        return False

    with pytest.raises(ShuttingDown):
        embeddings.embed("ann", many, is_abandoned=stop)
    assert service.chat.running.count == 0
