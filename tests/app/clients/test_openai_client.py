"""OpenAI's own client against the running server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.app.conftest import Shared

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


class Weather(BaseModel):
    """An answer that is asked for."""

    sky: Literal["clear", "grey"]
    windy: bool


@pytest.fixture
def client(shared: Shared) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[:2] == ["base", "live"]
    assert client.models.retrieve("base").owned_by == "burnish"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sha256:0000")


def test_an_answer_is_the_same_at_once_streamed_and_asynchronous(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {
        "model": "live",
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": 12,
    }
    whole = client.chat.completions.create(**given)
    text = whole.choices[0].message.content
    assert text
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 12
    chunks = list(
        client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage == whole.usage

    async def later() -> str | None:
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none") as other:
            answer = await other.chat.completions.create(**given)
            said: str | None = answer.choices[0].message.content
            return said

    assert asyncio.run(later()) == text


def test_log_probabilities_are_read(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="live", messages=MESSAGES, max_tokens=3, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)


def test_an_answer_is_parsed_as_the_model_that_was_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="live", messages=MESSAGES, response_format=Weather, temperature=1.0, max_tokens=60
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_a_refusal_is_an_exception_with_the_sentence(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="reasoning_effort is not supported"):
        client.chat.completions.create(model="live", messages=MESSAGES, reasoning_effort="high")
    with pytest.raises(openai.APIConnectionError):
        gone = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
        gone.with_options(timeout=2).models.list()
