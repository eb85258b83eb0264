"""OpenAI's own client of responses against the running server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel

from engine.prompts.calls.formats import HERMES
from engine.tools import WrittenCall
from tests.app.clients.weather_tools import SCHEMA
from tests.app.conftest import Played, Shared
from tests.app.stored import answer as stored_answer

QUESTION = "Where is it warm?"
TOOLS: list[FunctionToolParam] = [
    {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True},
    {"type": "function", "name": "clock", "parameters": None, "strict": None},
]
CALLS = [WrittenCall("weather", '{"city": "Rome", "days": 1}'), WrittenCall("clock", "{}")]
GREEDY: dict[str, Any] = {
    "model": "live",
    "input": QUESTION,
    "temperature": 0,
    "max_output_tokens": 12,
}
ASKED: dict[str, Any] = {"model": "live", "input": QUESTION}


class Weather(BaseModel):
    """An answer that is asked for."""

    sky: Literal["clear", "grey"]
    windy: bool


@pytest.fixture
def client(shared: Shared) -> Iterator[openai.OpenAI]:
    """A client of a server with a model."""
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def scripted(played: Played) -> Iterator[openai.OpenAI]:
    """A client of a server whose model writes what `played.engine.says`."""
    with openai.OpenAI(base_url=f"{played.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def items(response: Response) -> list[Any]:
    """The items of a response, of whatever types they are."""
    return list(response.output)


# Over a model


def test_a_response_is_the_same_at_once_streamed_and_asynchronous(client: openai.OpenAI) -> None:
    whole = client.responses.create(**GREEDY)
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens <= 12
    deltas = [
        event.delta
        for event in client.responses.create(**GREEDY, stream=True)
        if event.type == "response.output_text.delta"
    ]
    assert "".join(deltas) == whole.output_text

    async def later() -> list[str]:
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none") as other:
            response = await other.responses.create(**GREEDY)
            stream = await other.responses.create(**GREEDY, stream=True)
            words = [e.delta async for e in stream if e.type == "response.output_text.delta"]
            return [response.output_text, "".join(words)]

    assert asyncio.run(later()) == [whole.output_text] * 2


def test_arguments_are_valid_whatever_the_model_would_say(client: openai.OpenAI) -> None:
    response = client.responses.create(
        **ASKED,
        temperature=1.5,
        max_output_tokens=200,
        tools=TOOLS,
        tool_choice={"type": "function", "name": "weather"},
    )
    (call,) = items(response)
    assert call.type == "function_call"
    assert (call.name, response.status) == ("weather", "completed")
    jsonschema.validate(json.loads(call.arguments), SCHEMA)


def test_a_response_is_parsed_as_the_model_that_was_asked_for(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {**ASKED, "temperature": 1.0, "max_output_tokens": 90}
    assert isinstance(client.responses.parse(**asked, text_format=Weather).output_parsed, Weather)
    with client.responses.stream(**asked, text_format=Weather) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Weather)


def test_log_probabilities_are_read(client: openai.OpenAI) -> None:
    response = client.responses.create(
        **GREEDY, include=["message.output_text.logprobs"], top_logprobs=2
    )
    content = items(response)[0].content[0]
    assert response.usage is not None
    assert len(content.logprobs) == response.usage.output_tokens
    assert all(len(token.top_logprobs) == 2 for token in content.logprobs)


# What the model writes, and what it is shown


def test_thoughts_words_and_calls_are_items(played: Played, scripted: openai.OpenAI) -> None:
    played.engine.says = f"<think>\nTwo things.\n</think>\n\nI look.\n{HERMES.write(CALLS)}"
    whole = scripted.responses.create(**ASKED, tools=TOOLS)
    with scripted.responses.stream(**ASKED, tools=TOOLS) as stream:
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        thought, words, weather, clock = items(response)
        assert thought.type == "reasoning"
        assert thought.content is not None
        assert thought.content[0].text == "Two things."
        assert words.type == "message"
        assert response.output_text == "I look."
        assert weather.type == clock.type == "function_call"
        assert (weather.name, json.loads(weather.arguments)) == (
            "weather",
            {"city": "Rome", "days": 1},
        )
        assert (clock.name, clock.arguments) == ("clock", "{}")
        assert weather.call_id != clock.call_id
        assert response.status == "completed"


def test_the_events_are_typed_and_numbered(played: Played) -> None:
    played.engine.says = f"<think>\nHm.\n</think>\n\nI look.\n{HERMES.write(CALLS[1:])}"
    body = {**ASKED, "tools": TOOLS, "stream": True}
    text = httpx.post(f"{played.url}/v1/responses", json=body, timeout=60).text
    events = [event.split("\n") for event in text.strip().split("\n\n")]
    data = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert [lines[0] for lines in events] == [f"event: {each['type']}" for each in data]
    assert [each["sequence_number"] for each in data] == list(range(len(data)))
    kinds = [each["type"] for each in data]
    once = [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]
    assert once == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    done = [each["item"] for each in data if each["type"] == "response.output_item.done"]
    assert data[-1]["response"]["output"] == done
    assert data[0]["response"]["status"] == "in_progress"
    assert {each["response"]["id"] for each in data if "response" in each} == {
        data[-1]["response"]["id"]
    }


def test_a_response_that_was_cut_off_is_incomplete(played: Played, scripted: openai.OpenAI) -> None:
    cut: dict[str, Any] = {**ASKED, "max_output_tokens": 3}
    response = scripted.responses.create(**cut)
    assert response.output_text == "w0 w1 w2 "
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert items(response)[0].status == "incomplete"
    *_, last = scripted.responses.create(**cut, stream=True)
    assert last.type == "response.incomplete"
    assert last.response.output_text == "w0 w1 w2 "


def test_calls_and_results_are_sent_back_by_the_client(
    played: Played, scripted: openai.OpenAI
) -> None:
    played.engine.says = f"<think>\nHm.\n</think>\n\n{HERMES.write(CALLS[:1])}"
    called = scripted.responses.create(**ASKED, tools=TOOLS, store=False)
    call = items(called)[-1]
    assert call.type == "function_call"
    played.engine.says = "In Rome."
    sent: list[Any] = [
        {"role": "user", "content": QUESTION},
        *(item.to_dict() for item in items(called)),
        {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"},
    ]
    assert (
        scripted.responses.create(model="live", input=sent, tools=TOOLS).output_text == "In Rome."
    )
    shown = played.engine.requests[-1].messages
    assert [(m.role, m.content) for m in shown[1:]] == [
        ("user", QUESTION),
        ("assistant", ""),
        ("tool", "22 degrees"),
    ]
    assert [each.id for each in shown[2].calls] == [call.call_id]


# What is kept


def test_a_response_goes_on_from_the_one_before(played: Played, scripted: openai.OpenAI) -> None:
    played.engine.says = HERMES.write(CALLS[:1])
    first = scripted.responses.create(**ASKED, tools=TOOLS, instructions="Be kind.")
    (call,) = items(first)
    assert call.type == "function_call"
    played.engine.says = "In Rome."
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}
    second = scripted.responses.create(
        model="live", input=[result], previous_response_id=first.id, instructions="Be brief."
    )
    third = scripted.responses.create(
        model="live", input="And tomorrow?", previous_response_id=second.id
    )
    assert second.previous_response_id == first.id
    shown = played.engine.requests[-1].messages
    assert [(m.role, m.content) for m in shown] == [
        ("user", QUESTION),
        ("assistant", ""),
        ("tool", "22 degrees"),
        ("assistant", "In Rome."),
        ("user", "And tomorrow?"),
    ]
    assert played.engine.requests[-2].messages[0].content == "Be brief."
    assert not any(message.tools for message in shown)  # each request offers its own
    turns = [
        played.service.workspace.store.turn_of(each.id, "api") for each in (first, second, third)
    ]
    assert len({turn.conversation_id for turn in turns}) == 1
    assert [turn.parent_answer_id for turn in turns] == [None, first.id, second.id]


def test_only_an_answer_of_one_s_own_can_be_followed(
    played: Played, scripted: openai.OpenAI
) -> None:
    first = scripted.responses.create(**ASKED)
    with httpx.Client(base_url=played.url) as stranger:
        stranger.get("/", headers={"accept": "text/html"})
        asked = {**ASKED, "previous_response_id": first.id}
        for refused in (
            stranger.post("/v1/responses", json=asked),
            stranger.get(f"/v1/responses/{first.id}"),
        ):
            assert refused.status_code == 404
    with pytest.raises(openai.NotFoundError):
        scripted.responses.create(**ASKED, previous_response_id="unknown")


def test_a_call_that_was_cut_off_cannot_be_followed(
    played: Played, scripted: openai.OpenAI
) -> None:
    played.engine.says = HERMES.write(CALLS[:1])
    cut = scripted.responses.create(**ASKED, tools=TOOLS, max_output_tokens=6)
    with pytest.raises(openai.BadRequestError, match="cut off in its call of weather"):
        scripted.responses.create(**ASKED, previous_response_id=cut.id)


def test_a_response_is_retrieved_as_it_was(played: Played, scripted: openai.OpenAI) -> None:
    played.engine.says = f"<think>\nTwo things.\n</think>\n\nI look.\n{HERMES.write(CALLS)}"
    made = scripted.responses.create(
        **ASKED, tools=TOOLS, instructions="Be kind.", temperature=0.5, top_p=0.9
    )
    found = scripted.responses.retrieve(made.id)
    for name in ("id", "status", "output", "instructions", "temperature", "top_p", "tool_choice"):
        assert getattr(found, name) == getattr(made, name), name
    assert [tool.to_dict()["name"] for tool in found.tools] == ["weather", "clock"]
    assert found.usage is not None
    assert made.usage is not None
    assert found.usage.total_tokens == made.usage.total_tokens
    assert found.model == "base"  # what was live
    with pytest.raises(openai.BadRequestError, match="stream"):
        scripted.responses.retrieve(made.id, stream=True)


def test_a_schema_and_a_cut_are_retrieved_too(played: Played, scripted: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "name": "answer", "schema": {"enum": ["a"]}}
    made = scripted.responses.create(**ASKED, text={"format": wanted}, max_output_tokens=2)
    found = scripted.responses.retrieve(made.id)
    assert (found.status, found.max_output_tokens) == ("incomplete", 2)
    assert found.text is not None
    assert found.text.format is not None
    assert found.text.format.to_dict() == wanted


def test_a_response_that_is_not_to_be_stored_is_not(
    played: Played, scripted: openai.OpenAI
) -> None:
    before = played.service.workspace.store.counts()
    response = scripted.responses.create(**ASKED, max_output_tokens=2, store=False)
    assert response.output_text
    assert played.service.workspace.store.counts() == before
    with pytest.raises(openai.NotFoundError):
        scripted.responses.retrieve(response.id)


def test_a_vote_names_a_response_by_its_id(played: Played, scripted: openai.OpenAI) -> None:
    played.engine.says = "In Rome."
    response = scripted.responses.create(**ASKED, metadata={"job": "nightly"})
    assert response.metadata == {"job": "nightly"}
    voted = httpx.post(f"{played.url}/api/answers/{response.id}/vote", json={"vote": 1})
    assert voted.status_code == 200
    assert stored_answer(played.service, response.id)["text"] == "In Rome."


def test_the_oldest_exchanges_are_left_out_where_the_context_is_too_short(
    played: Played, scripted: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(played.engine, "context_tokens", 12)
    asked: dict[str, Any] = {
        "model": "live",
        "instructions": "Be kind.",
        "max_output_tokens": 4,
        "input": [
            {"role": "user", "content": "one two three"},
            {"role": "assistant", "content": "four"},
            {"role": "user", "content": "five"},
            {"role": "assistant", "content": "six seven"},
            {"role": "user", "content": "eight nine ten"},
        ],
    }  # 12 words in all; 8 fit beside the answer
    shown = scripted.responses.create(**asked, truncation="auto").usage
    assert shown is not None
    assert shown.input_tokens == 8
    with pytest.raises(openai.APIStatusError) as refused:
        scripted.responses.create(**asked)
    assert refused.value.status_code == 413


# Refusals


def test_a_refusal_is_an_exception_with_the_sentence(scripted: openai.OpenAI) -> None:
    for more, sentence in (
        ({"truncation": "none"}, "truncation: Input should be 'auto' or 'disabled'"),
        ({"conversation": "c"}, "conversation is not supported"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort: Input should be 'none' or 'medium'"),
        ({"reasoning": {"effort": "medium"}}, "reasoning.effort: this model has no thoughts"),
        ({"tools": [{"type": "web_search"}]}, "tools.0: a tool of type 'web_search'"),
        (
            {"tools": TOOLS, "text": {"format": {"type": "json_object"}}},
            "tools: an answer that follows a response format",
        ),
    ):
        with pytest.raises(openai.BadRequestError, match=sentence):
            scripted.responses.create(**ASKED, **more)


def test_a_stream_that_fails_ends_with_the_failed_response(
    played: Played, scripted: openai.OpenAI, long_answers: None
) -> None:
    last = None
    for event in scripted.responses.create(**ASKED, stream=True):
        if event.type == "response.output_text.delta":
            played.engine.break_off("the engine is tired")
        last = event
    assert last is not None
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "the engine is tired"
