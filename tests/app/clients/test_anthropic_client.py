"""Anthropic's own client against the running server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx
import jsonschema
import pytest
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

from engine.prompts.calls.formats import HERMES
from engine.tools import WrittenCall
from tests.app.clients.weather_tools import SCHEMA
from tests.app.conftest import Played, Shared

QUESTION: list[MessageParam] = [{"role": "user", "content": "Where is it warm?"}]
TOOLS: list[ToolParam] = [
    {"name": "weather", "input_schema": SCHEMA},
    {"name": "clock", "description": "The time.", "input_schema": {"type": "object"}},
]
CALLS = [WrittenCall("weather", '{"city": "Rome", "days": 1}'), WrittenCall("clock", "{}")]
GREEDY: dict[str, Any] = {
    "model": "live",
    "messages": QUESTION,
    "max_tokens": 12,
    "extra_body": {"temperature": 0},
}
ASKED: dict[str, Any] = {"model": "live", "messages": QUESTION, "max_tokens": 90}


class Weather(BaseModel):
    """An answer that is asked for."""

    sky: Literal["clear", "grey"]
    windy: bool


@pytest.fixture
def client(shared: Shared) -> Iterator[anthropic.Anthropic]:
    """A client of a server with a model."""
    with anthropic.Anthropic(base_url=shared.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def scripted(played: Played) -> Iterator[anthropic.Anthropic]:
    """A client of a server whose model writes what `played.engine.says`."""
    with anthropic.Anthropic(base_url=played.url, api_key="none", max_retries=0) as client:
        yield client


def blocks(message: anthropic.types.Message) -> list[Any]:
    """The blocks of a message, of whatever types they are."""
    return list(message.content)


# Over a model


def test_a_message_is_the_same_at_once_streamed_and_asynchronous(
    client: anthropic.Anthropic,
) -> None:
    whole = client.messages.create(**GREEDY)
    (block,) = blocks(whole)
    assert block.type == "text"
    assert block.text
    assert whole.usage.output_tokens <= 12
    with client.messages.stream(**GREEDY) as stream:
        assert "".join(stream.text_stream) == block.text
        streamed = stream.get_final_message()
    assert (streamed.stop_reason, streamed.role) == (whole.stop_reason, "assistant")

    async def later() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=str(client.base_url), api_key="none") as other:
            message = await other.messages.create(**GREEDY)
            async with other.messages.stream(**GREEDY) as stream:
                words = [text async for text in stream.text_stream]
            return ["".join(b.text for b in message.content if b.type == "text"), "".join(words)]

    assert asyncio.run(later()) == [block.text, block.text]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"system": "Be brief."},
        {"tools": TOOLS},
        {"messages": [*QUESTION, {"role": "assistant", "content": "It is"}]},
    ],
)
def test_the_count_of_tokens_is_that_of_the_message(
    client: anthropic.Anthropic, more: dict[str, Any]
) -> None:
    counted = client.messages.count_tokens(**{"model": "live", "messages": QUESTION, **more})
    usage = client.messages.create(**{**GREEDY, **more}).usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    with client.messages.stream(**{**GREEDY, **more}) as stream:
        (start,) = [event for event in stream if event.type == "message_start"]
    assert start.message.usage.input_tokens == counted.input_tokens


def test_arguments_are_valid_whatever_the_model_would_say(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        **ASKED,
        "max_tokens": 200,
        "extra_body": {"temperature": 1.5},
        "tools": TOOLS,
        "tool_choice": {"type": "tool", "name": "weather"},
    }
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for message in (client.messages.create(**asked), streamed):
        (call,) = blocks(message)
        assert call.type == "tool_use"
        assert (call.name, message.stop_reason) == ("weather", "tool_use")
        jsonschema.validate(call.input, SCHEMA)


def test_a_message_is_parsed_as_the_model_that_was_asked_for(client: anthropic.Anthropic) -> None:
    asked = {**ASKED, "extra_body": {"temperature": 1.0}}
    parsed = client.messages.parse(**asked, output_format=Weather).parsed_output
    assert isinstance(parsed, Weather)


def test_a_stop_sequence_ends_the_message_and_is_named(
    client: anthropic.Anthropic, shared: Shared
) -> None:
    (whole,) = blocks(client.messages.create(**{**GREEDY, "max_tokens": 40}))
    assert whole.type == "text"
    stop = whole.text[6:10]
    ended = client.messages.create(
        **{**GREEDY, "max_tokens": 40}, stop_sequences=["not in the text", stop]
    )
    assert (ended.stop_reason, ended.stop_sequence) == ("stop_sequence", stop)
    (words,) = blocks(ended)
    assert words.type == "text"
    assert words.text == whole.text[: whole.text.index(stop)]


def test_a_vote_names_a_message_by_its_id(client: anthropic.Anthropic, shared: Shared) -> None:
    message = client.messages.create(**GREEDY)
    voted = httpx.post(f"{shared.url}/api/answers/{message.id}/vote", json={"vote": 1})
    assert voted.status_code == 200


# What the model writes, and what it is shown


def test_thoughts_words_and_calls_are_blocks(played: Played, scripted: anthropic.Anthropic) -> None:
    played.engine.says = f"<think>\nTwo things.\n</think>\n\nI look.\n{HERMES.write(CALLS)}"
    whole = scripted.messages.create(**ASKED, tools=TOOLS)
    with scripted.messages.stream(**ASKED, tools=TOOLS) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        thought, words, weather, clock = blocks(message)
        assert thought.type == "thinking"
        assert thought.thinking == "Two things."
        assert words.type == "text"
        assert words.text == "I look."
        assert weather.type == clock.type == "tool_use"
        assert (weather.name, weather.input) == ("weather", {"city": "Rome", "days": 1})
        assert (clock.name, clock.input) == ("clock", {})
        assert weather.id != clock.id
        assert message.stop_reason == "tool_use"


def test_the_events_come_in_the_documented_order(played: Played) -> None:
    played.engine.says = f"<think>\nHm.\n</think>\n\nI look.\n{HERMES.write(CALLS[1:])}"
    body = {**ASKED, "tools": TOOLS, "stream": True}
    text = httpx.post(f"{played.url}/v1/messages", json=body, timeout=60).text
    events = [event.split("\n") for event in text.strip().split("\n\n")]
    data = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert [lines[0] for lines in events] == [f"event: {each['type']}" for each in data]
    kinds = [each["type"] for each in data]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert data[0]["message"]["content"] == []
    blocks = [each for each in data if each["type"].startswith("content_block")]
    for index, delta in enumerate(("thinking_delta", "text_delta", "input_json_delta")):
        first, *between, last = [each for each in blocks if each["index"] == index]
        assert (first["type"], last["type"]) == ("content_block_start", "content_block_stop")
        assert between
        assert {each["delta"]["type"] for each in between} == {delta}
    assert sorted(blocks, key=lambda each: int(each["index"])) == blocks  # one after the other
    assert data[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert data[-2]["usage"]["output_tokens"] > 0


def test_arguments_that_were_cut_off_are_what_had_come(
    played: Played, scripted: anthropic.Anthropic
) -> None:
    played.engine.says = HERMES.write(CALLS)
    cut = {**ASKED, "max_tokens": 6}
    message = scripted.messages.create(**cut, tools=TOOLS)
    with scripted.messages.stream(**cut, tools=TOOLS) as stream:
        streamed = stream.get_final_message()
    for each in (message, streamed):
        assert each.stop_reason == "max_tokens"
        (call,) = blocks(each)
        assert call.type == "tool_use"
        assert set(call.input) <= {"city", "days"}
    assert blocks(message)[0].input == blocks(streamed)[0].input


def test_the_model_is_shown_calls_and_their_results(
    played: Played, scripted: anthropic.Anthropic
) -> None:
    played.engine.says = HERMES.write(CALLS[:1])
    called = scripted.messages.create(**ASKED, tools=TOOLS, system="Be kind.")
    (call,) = blocks(called)
    assert call.type == "tool_use"
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees"}
    played.engine.says = "In Rome."
    sent: list[MessageParam] = [*QUESTION, called.to_param(), {"role": "user", "content": [result]}]
    answer = scripted.messages.create(
        model="live", max_tokens=90, messages=sent, tools=TOOLS, system="Be kind."
    )
    assert blocks(answer)[0].text == "In Rome."
    assert answer.stop_reason == "end_turn"
    shown = played.engine.requests[-1].messages
    assert [(m.role, m.content) for m in shown] == [
        ("system", "Be kind."),
        ("user", "Where is it warm?"),
        ("assistant", ""),
        ("tool", "22 degrees"),
    ]
    assert [each.name for each in shown[0].tools] == ["weather", "clock"]
    assert [(each.id, each.arguments) for each in shown[2].calls] == [
        (call.id, '{"city": "Rome", "days": 1}')
    ]


def test_a_begun_answer_is_continued(played: Played, scripted: anthropic.Anthropic) -> None:
    played.engine.says = "is warm."
    begun: MessageParam = {"role": "assistant", "content": "Rome "}
    message = scripted.messages.create(model="live", max_tokens=9, messages=[*QUESTION, begun])
    assert blocks(message)[0].text == "is warm."
    assert played.engine.requests[-1].prefill == "Rome "
    stored = httpx.get(f"{played.url}/api/answers/{message.id}").json()
    assert stored["text"] == "Rome is warm."


def test_thoughts_are_switched_where_the_model_has_a_switch(
    played: Played, scripted: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.engine.says = "In Rome."
    enabled: Any = {"type": "enabled", "budget_tokens": 1024}
    with pytest.raises(anthropic.BadRequestError, match="thinking: this model has no thoughts"):
        scripted.messages.create(**ASKED, thinking=enabled)
    with pytest.raises(anthropic.BadRequestError, match="thinking: this model has no thoughts"):
        scripted.messages.count_tokens(model="live", messages=QUESTION, thinking=enabled)
    monkeypatch.setattr(played.engine, "thinks_unasked", True)
    disabled: Any = {"type": "disabled"}
    for asked, switch in ((enabled, True), (disabled, False)):
        scripted.messages.create(**ASKED, thinking=asked)
        assert played.engine.requests[-1].thinking is switch


# Refusals


def test_errors_are_in_anthropic_s_format(shared: Shared) -> None:
    def refusal(path: str, body: Any, **more: Any) -> tuple[int, str, str]:
        content = body if isinstance(body, str) else json.dumps(body)
        response = httpx.request(
            more.get("method", "POST"),
            f"{shared.url}{path}",
            content=content,
            headers={"content-type": "application/json", "x-api-key": "k"},
        )
        document = response.json()
        assert document["type"] == "error"
        assert set(document["error"]) == {"type", "message"}
        return response.status_code, document["error"]["type"], document["error"]["message"]

    asked = {"model": "live", "max_tokens": 4, "messages": QUESTION}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        assert refusal(path, {**asked, "speed": "fast"}) == (
            400,
            "invalid_request_error",
            'speed is not supported; leave it out, or send null or "standard"',
        )
        assert refusal(path, {**asked, "model": "0000"})[:2] == (404, "not_found_error")
        assert refusal(path, "{")[:2] == (400, "invalid_request_error")
        assert refusal(path, {**asked, "system": "sea " * 90_000})[:2] == (413, "request_too_large")
        assert refusal(path, "x" * 5_000_000)[:2] == (413, "request_too_large")
        assert refusal(path, asked, method="GET")[:2] == (405, "invalid_request_error")
    assert refusal("/v1/messages", {"messages": QUESTION})[2] == "max_tokens: Field required"
    assert refusal("/v1/messages/batches", asked)[:2] == (404, "not_found_error")


def test_a_full_queue_is_a_rate_limit(played: Played, scripted: anthropic.Anthropic) -> None:
    played.engine.stand_still()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(played.engine, "_max_rows", 0)
        patch.setattr(played.engine, "_max_queue", 0)
        with pytest.raises(anthropic.RateLimitError, match="the queue is full"):
            scripted.messages.create(**ASKED)


def test_a_stream_that_fails_ends_with_an_error(
    played: Played, scripted: anthropic.Anthropic, long_answers: None
) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="the engine is tired"),
        scripted.messages.stream(**{**ASKED, "max_tokens": 4_000}) as stream,
    ):
        for event in stream:
            if event.type == "content_block_delta":
                played.engine.break_off("the engine is tired")
