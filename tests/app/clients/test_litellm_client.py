"""LiteLLM against the running server, over each of its formats: `make client-suite`.

It brings packages of other versions, so it has an environment of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import jsonschema
import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks GitHub for prices

pytest.importorskip(
    "litellm", reason="needs litellm in an environment of its own: make client-suite"
)

import litellm

from engine.prompts.calls.formats import HERMES
from engine.tools import WrittenCall
from tests.app.clients.weather_tools import QUESTION, SCHEMA, TOOLS
from tests.app.conftest import Played, Shared

GREEDY: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "max_tokens": 12}


def place(url: str, provider: str) -> dict[str, Any]:
    """Where LiteLLM finds the server, by the name that it gives a format."""
    base = f"{url}/v1" if provider == "openai" else url
    return {"model": f"{provider}/live", "api_base": base, "api_key": "none", "num_retries": 0}


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_completion_is_the_same_at_once_streamed_and_asynchronous(
    shared: Shared, provider: str
) -> None:
    given = {**place(shared.url, provider), **GREEDY}
    whole = litellm.completion(**given)
    text = whole.choices[0].message.content
    assert text
    assert 0 < whole.usage.completion_tokens <= 12
    usage = {"stream_options": {"include_usage": True}}
    chunks = list(litellm.completion(**given, stream=True, **usage))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    totals = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert totals[-1].completion_tokens == whole.usage.completion_tokens
    assert totals[-1].prompt_tokens == whole.usage.prompt_tokens
    later = asyncio.run(litellm.acompletion(**given))
    assert later.choices[0].message.content == text


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_arguments_are_valid_whatever_the_model_would_say(shared: Shared, provider: str) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = litellm.completion(
        **place(shared.url, provider),
        messages=QUESTION,
        tools=TOOLS,
        tool_choice=choice,
        temperature=1.0,
        max_tokens=200,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_calls_are_streamed_and_their_results_come_back(played: Played, provider: str) -> None:
    played.engine.says = HERMES.write([WrittenCall("weather", '{"city": "Rome", "days": 1}')])
    given = {**place(played.url, provider), "tools": TOOLS, "max_tokens": 90}
    chunks = list(litellm.completion(**given, messages=QUESTION, stream=True))
    message = litellm.stream_chunk_builder(chunks).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Rome", "days": 1}
    played.engine.says = "In Rome."
    result = {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}
    sent = [*QUESTION, message.model_dump(), result]
    answer = litellm.completion(**given, messages=sent)
    assert answer.choices[0].message.content == "In Rome."
    shown = played.engine.requests[-1].messages
    assert [m.role for m in shown] == ["system", "user", "assistant", "tool"]
    assert shown[-1].content == "22 degrees"


def test_a_response_is_made(shared: Shared) -> None:
    response = litellm.responses(
        **place(shared.url, "openai"), input="Say hello.", temperature=0, max_output_tokens=16
    )
    assert response.output[0].content[0].text
    assert response.usage.output_tokens <= 16  # LiteLLM asks for no fewer


def test_texts_are_embedded(shared: Shared) -> None:
    texts = ["The sea.", "The tide."]
    found = litellm.embedding(**place(shared.url, "openai"), input=texts)
    vectors = [row["embedding"] for row in found.data]
    assert len(vectors) == 2
    assert sum(channel**2 for channel in vectors[0]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_refusal_is_an_exception_with_the_sentence(shared: Shared, provider: str) -> None:
    refused: dict[str, Any] = {**GREEDY, "temperature": 11}
    with pytest.raises(litellm.BadRequestError, match="temperature must lie in"):
        litellm.completion(**place(shared.url, provider), **refused)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**place(shared.url, provider), "model": f"{provider}/0000"}, **GREEDY)
