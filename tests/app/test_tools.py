"""Tools in the API: what a model writes becomes calls, for the clients that people use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import SecretStr

from app.service import Service
from engine.prompts.calls.formats import HERMES, WrittenCall
from engine.request import Engine
from feedback_store.examples.building import build_examples
from feedback_store.examples.rules import Rules
from feedback_store.personal.example_pool import WITH_TOOLS, examine
from feedback_store.storage.evidence import EvidenceReader
from tests.app.conftest import Played, Shared, serving_engine
from tests.app.stored import answer as stored_answer

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 3},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[ChatCompletionToolUnionParam] = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock", "description": "The time."}},
]
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where is it warm?"}]
TWO = HERMES.write(
    [WrittenCall("weather", '{"city": "Rome", "days": 1}'), WrittenCall("clock", "{}")]
)


@pytest.fixture
def client(shared: Shared) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def scripted(played: Played) -> Iterator[openai.OpenAI]:
    """A client of a server whose model writes what `played.engine.says`."""
    with openai.OpenAI(base_url=f"{played.url}/v1", api_key="none", max_retries=0) as client:
        yield client


# What the model writes


def test_calls_are_parts_of_the_message_and_their_markup_is_not_shown(
    played: Played, scripted: openai.OpenAI
) -> None:
    played.engine.says = f"<think>\nTwo things.\n</think>\n\nI look.\n{TWO}"
    answer = scripted.chat.completions.create(model="live", messages=QUESTION, tools=TOOLS, n=2)
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "I look."
        assert choice.message.to_dict()["reasoning_content"] == "Two things."
        calls = choice.message.tool_calls
        assert calls is not None
        assert [(c.type, c.function.name, c.function.arguments) for c in calls] == [  # type: ignore[union-attr]
            ("function", "weather", '{"city": "Rome", "days": 1}'),
            ("function", "clock", "{}"),
        ]
        assert len({call.id for call in calls}) == 2
        assert all(call.id.startswith("call_") for call in calls)
    played.engine.says = TWO
    alone = scripted.chat.completions.create(model="live", messages=QUESTION, tools=TOOLS)
    assert alone.choices[0].message.content is None


def test_a_stream_has_each_call_s_name_first_and_then_its_arguments(
    played: Played, scripted: openai.OpenAI
) -> None:
    played.engine.says = f"I look.\n{TWO}"
    chunks = list(
        scripted.chat.completions.create(model="live", messages=QUESTION, tools=TOOLS, stream=True)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "I look."
    pieces = [piece for delta in deltas for piece in delta.tool_calls or []]
    for index, (name, arguments) in enumerate(
        [("weather", '{"city": "Rome", "days": 1}'), ("clock", "{}")]
    ):
        first, *rest = [piece for piece in pieces if piece.index == index]
        assert first.id is not None
        assert first.id.startswith("call_")
        assert first.type == "function"
        assert first.function is not None
        assert first.function.name == name
        assert all(p.id is None and p.function and p.function.name is None for p in rest)
        said = [p.function.arguments or "" for p in (first, *rest) if p.function]
        assert "".join(said) == arguments
    assert len([piece for piece in pieces if piece.index == 0]) > 1
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_openai_s_own_accumulation_of_a_stream_gives_the_message(
    played: Played, scripted: openai.OpenAI
) -> None:
    played.engine.says = TWO
    with scripted.chat.completions.stream(model="live", messages=QUESTION, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["weather", "clock"]


def test_a_call_that_was_cut_off_ends_for_its_length(
    played: Played, scripted: openai.OpenAI
) -> None:
    played.engine.says = TWO
    answer = scripted.chat.completions.create(
        model="live", messages=QUESTION, tools=TOOLS, max_tokens=7
    )
    assert answer.choices[0].finish_reason == "length"
    (call,) = answer.choices[0].message.tool_calls or []
    assert '{"city": "Rome", "days": 1}'.startswith(call.function.arguments)  # type: ignore[union-attr]


def test_without_tools_the_same_text_is_text(played: Played, scripted: openai.OpenAI) -> None:
    played.engine.says = TWO
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        answer = scripted.chat.completions.create(model="live", messages=QUESTION, **more)  # type: ignore[call-overload]
        assert answer.choices[0].message.content == TWO
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].finish_reason == "stop"


def test_the_model_is_shown_tools_calls_and_results(
    played: Played, scripted: openai.OpenAI
) -> None:
    played.engine.says = TWO
    first = scripted.chat.completions.create(model="live", messages=QUESTION, tools=TOOLS)
    message = first.choices[0].message
    assert message.tool_calls is not None
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"{number}"}
        for number, call in enumerate(message.tool_calls)
    ]
    played.engine.says = "In Rome."
    sent: Any = [*QUESTION, message.to_dict(), *results]
    second = scripted.chat.completions.create(model="live", messages=sent, tools=TOOLS)
    assert second.choices[0].message.content == "In Rome."
    shown = played.engine.requests[-1].messages
    assert [m.role for m in shown] == ["system", "user", "assistant", "tool", "tool"]
    assert [each.name for each in shown[0].tools] == ["weather", "clock"]
    assert [call.name for call in shown[2].calls] == ["weather", "clock"]
    assert [m.call_id for m in shown[3:]] == [call.id for call in shown[2].calls]


# What a real engine is held to


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_arguments_are_valid_whatever_the_model_would_say(
    client: openai.OpenAI, choice: Any, stream: bool
) -> None:
    given: dict[str, Any] = {
        "model": "live",
        "messages": QUESTION,
        "tools": TOOLS,
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "temperature": 1.5,
        "max_tokens": 200,
        "n": 4,
    }
    if stream:
        with client.chat.completions.stream(**given) as events:
            choices: Any = events.get_final_completion().choices
    else:
        choices = client.chat.completions.create(**given).choices
    for each in choices:
        assert each.finish_reason == "tool_calls"
        (call,) = each.message.tool_calls
        if call.function.name == "weather":
            jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
        else:
            assert json.loads(call.function.arguments) == {}
            assert choice == "required"


def test_a_schema_that_cannot_be_kept_is_refused_by_its_tool(client: openai.OpenAI) -> None:
    odd: Any = {"name": "odd", "parameters": {"properties": {"a": {"type": "wavy"}}}}
    with pytest.raises(openai.BadRequestError, match="the parameters of the tool odd are refused"):
        client.chat.completions.create(
            model="live", messages=QUESTION, tools=[{"type": "function", "function": odd}]
        )


@tool
def count_days(city: str, days: int) -> str:
    """Count the warm days of a city."""
    return f"{city}: {days}"


def test_a_tool_of_langchain_is_called_and_its_result_is_read(shared: Shared) -> None:
    model = ChatOpenAI(
        base_url=f"{shared.url}/v1",
        api_key=SecretStr("none"),
        model="live",
        temperature=1.0,
        max_retries=0,
        max_completion_tokens=300,
    )
    asked = HumanMessage("How many days are warm in Oslo?")
    bound = model.bind_tools([count_days], tool_choice="any", parallel_tool_calls=False)
    called = bound.invoke([asked])
    assert isinstance(called, AIMessage)
    pieces = list(bound.stream([asked]))
    assert any(piece.tool_call_chunks for piece in pieces)  # type: ignore[attr-defined]
    for call in called.tool_calls:  # one, unless its text has no end within the limit
        assert call["name"] == "count_days"
        assert set(call["args"]) == {"city", "days"}
        told = ToolMessage(count_days.invoke(call["args"]), tool_call_id=call["id"])
        last = model.bind_tools([count_days]).invoke([asked, called, told])
        assert isinstance(last, AIMessage)
    assert called.tool_calls or called.invalid_tool_calls


# What is kept of it


def test_a_vote_trains_what_was_written_on_the_prompt_that_was_shown(
    service: Service, url: str
) -> None:
    engine: Engine = service.engine
    given = {"messages": QUESTION, "tools": TOOLS, "tool_choice": "required", "max_tokens": 200}
    with httpx.Client(base_url=url, timeout=60) as client:
        answered = client.post("/v1/chat/completions", json={**given, "parallel_tool_calls": False})
        document = answered.json()
        (choice,) = document["choices"]
        voted = client.post(f"/api/answers/{choice['answer_id']}/vote", json={"vote": 1})
        assert voted.status_code == 200, voted.text
    kept = stored_answer(service, choice["answer_id"])
    (call,) = choice["message"]["tool_calls"]
    assert kept["text"] == HERMES.write([WrittenCall(**call["function"])])
    evidence = EvidenceReader(service.workspace.database).all()
    (example,) = build_examples(evidence, {}, Rules()).demonstrations
    renderer = serving_engine(service).renderer
    assert engine.count_prompt_tokens(example.prompt) == document["usage"]["prompt_tokens"]
    assert "weather" in renderer.decode(renderer.prompt(example.prompt))
    assert example.completion.full_text == kept["text"]
    with service.workspace.database.read() as connection:  # and no chat is shown it as an example
        assert examine(connection, example.origin.event_ids) == {
            example.origin.event_ids[0]: WITH_TOOLS
        }
