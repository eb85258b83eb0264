"""The tools that a chat completion may offer, and the calls that come back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.messages import Message, tools_of
from engine.openai_messages import messages_of
from engine.tools import ToolCall, ToolChoice
from tests.app.web.completion_requests import ASKED, call, generation, read


def function(name: object, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def test_tools_are_offered_in_the_system_message() -> None:
    schema = {"type": "object", "properties": {"zone": {"type": "string"}}}
    asked = read(tools=[function("clock", description="The time.", parameters=schema)])
    offer, user = generation(asked).messages
    assert [each.as_dict() for each in offer.tools] == asked.tools
    assert (offer.role, offer.content, user.role) == ("system", "", "user")
    assert asked.form().tool_choice == ToolChoice("auto", None, parallel=True)
    system = {"role": "developer", "content": "Be kind."}
    offer, _ = generation(read(messages=[system, *ASKED["messages"]], tools=asked.tools)).messages
    assert offer.content == "Be kind."
    assert offer.tools


def test_a_function_without_parameters_takes_none() -> None:
    offer, _ = generation(read(tools=[function("clock")])).messages
    assert json.loads(offer.tools[0].parameters) == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("more", "choice"),
    [
        ({"tool_choice": "auto", "parallel_tool_calls": False}, ToolChoice(parallel=False)),
        ({"tool_choice": "required"}, ToolChoice("required")),
        ({"tool_choice": function("clock")}, ToolChoice("required", "clock", parallel=False)),
        ({"tool_choice": "none"}, None),
    ],
)
def test_the_choice_of_a_tool_is_read(more: dict[str, Any], choice: ToolChoice | None) -> None:
    asked = generation(read(tools=[function("clock")], **more))
    assert asked.sampling.tool_choice == choice
    assert bool(tools_of(asked.messages)) is (choice is not None)  # "none" shows the model no tools


def test_calls_and_results_come_back_with_the_arguments_as_json() -> None:
    messages = messages_of(
        [
            {"role": "user", "content": "How late?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call("clock", '{"z":"\\u5317"}')],
            },
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "Noon."}]},
        ]
    )
    assert messages[1:] == (
        Message("assistant", "", calls=(ToolCall("c", "clock", '{"z": "北"}'),)),
        Message("tool", "Noon.", call_id="c"),
    )


BEGUN = [*ASKED["messages"], {"role": "assistant", "content": "One,"}]
JSON_ANSWER = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0: a tool of type 'web_search' is not supp"),
        ({"tools": [{"type": "function"}]}, "tools.0.function must be an object"),
        ({"tools": [function("a b")]}, "tools.0.function.name must be 1 to 64 letters"),
        ({"tools": [function("a" * 65)]}, "tools.0.function.name must be 1 to 64 letters"),
        ({"tools": [function(None)]}, "tools.0.function.name must be 1 to 64 letters"),
        ({"tools": [function("a", description=7)]}, "tools.0.function.description must be text"),
        ({"tools": [function("a", parameters=[])]}, "tools.0.function.parameters must be an obj"),
        (
            {"tools": [function("a", parameters={"type": "string"})]},
            "tools.0.function.parameters must be the schema of an object",
        ),
        ({"tools": [function("a"), function("a")]}, "tools has two functions with the name a"),
        (
            {"tools": [function(f"f{i}") for i in range(129)]},
            "tools may have at most 128 functions",
        ),
        ({"tool_choice": "required"}, "tool_choice asks for a call, and the request has no tools"),
        ({"tool_choice": "always", "tools": [function("a")]}, "tool_choice must be 'none'"),
        ({"tool_choice": function("b"), "tools": [function("a")]}, "tool_choice: tools has no fun"),
        (
            {"tool_choice": {"type": "allowed_tools"}, "tools": [function("a")]},
            "tool_choice must be 'none'",
        ),
        (
            {"tools": [function("a")], **JSON_ANSWER},
            "tools: an answer that follows a response format",
        ),
        ({"tools": [function("a")], "messages": BEGUN}, "tools: an answer that is given in part"),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_by_name(
    more: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        generation(read(**more))
    assert str(raised.value).startswith(reason)
