"""Tools in the API over a real engine: arguments are valid, and what was called is kept."""

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
from pydantic import SecretStr

from app.service import Service
from engine.prompts.calls.formats import HERMES
from engine.request import Engine
from engine.tools import WrittenCall
from feedback_store.examples.building import build_examples
from feedback_store.examples.rules import Rules
from feedback_store.personal.example_pool import WITH_TOOLS, examine
from feedback_store.storage.evidence import EvidenceReader
from tests.app.clients.weather_tools import QUESTION, SCHEMA, TOOLS
from tests.app.conftest import Shared, serving_engine
from tests.app.stored import answer as stored_answer


@pytest.fixture
def client(shared: Shared) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


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
