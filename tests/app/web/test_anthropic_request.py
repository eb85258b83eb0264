"""What a request for a message may ask for: each field of Anthropic's document is served or
refused."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsBase
from pydantic import ValidationError

from app.web.anthropic.request import (
    MESSAGE_LABELS,
    UNSUPPORTED_MESSAGE_FIELDS,
    MessageRequest,
    PromptRequest,
)
from engine.errors import InvalidInput
from engine.messages import Message, tools_of
from engine.request import SamplingParams
from engine.tools import ToolCall, ToolChoice

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
USUAL = SamplingParams(temperature=0.3, top_p=0.6, max_new_tokens=8, seed=11)
IN_HEADERS = {"workspace_id"}  # fields of the client that are no part of the body
ASKING = {
    "container": {"id": "c"},
    "context_management": {"edits": []},
    "diagnostics": {"previous_message_id": "m"},
    "inference_geo": "eu",
    "mcp_servers": [{"type": "url", "url": "http://localhost", "name": "m"}],
    "service_tier": "priority",
    "speed": "fast",
    "user_profile_id": "u",
}
CLOCK = {"name": "clock", "description": "The time.", "input_schema": {"type": "object"}}


def read(**more: Any) -> MessageRequest:
    return MessageRequest.model_validate({**ASKED, **more})


def messages_of(*items: Any, **more: Any) -> list[Message]:
    asked = read(messages=list(items), **more)
    return list(asked.conversation(asked.form()))


def test_every_field_of_the_client_is_served_refused_or_a_label() -> None:
    refused = set(UNSUPPORTED_MESSAGE_FIELDS) | set(MESSAGE_LABELS)
    fields = set(MessageCreateParamsBase.__annotations__) | {"stream"}
    assert fields - IN_HEADERS <= set(MessageRequest.model_fields) | refused
    counted = set(MessageCountTokensParams.__annotations__)
    assert counted - IN_HEADERS <= set(PromptRequest.model_fields) | refused


@pytest.mark.parametrize("name", UNSUPPORTED_MESSAGE_FIELDS)
def test_an_unsupported_field_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{name} is not supported"):
        read(**{name: ASKING[name]})
    for neutral in (None, *UNSUPPORTED_MESSAGE_FIELDS[name]):
        assert read(**{name: neutral}) == read()


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
        ({"stop_sequences": ["a"] * 17}, "stop_sequences"),
        ({"metadata": {"user_id": "u" * 257}}, "metadata.user_id"),
        ({"temperature": "hot"}, "temperature"),
        ({"tool_choice": {"type": "always"}}, "tool_choice.type"),
    ],
)
def test_a_value_that_is_not_served_is_refused_at_its_place(
    asked: dict[str, Any], place: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        read(**asked)
    (problem,) = raised.value.errors()
    assert ".".join(map(str, problem["loc"])).startswith(place)


def test_sampling_reaches_the_engine_and_the_operators_holds_where_nothing_is_said() -> None:
    asked = read(
        temperature=1,
        top_k=5,
        top_p=0.5,
        stop_sequences=["", "END"],
        seed=7,
        metadata={"user_id": "ann"},
    )
    (sampling,) = asked.samplings(USUAL, asked.form())
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (1, 5, 0.5)
    assert (sampling.stop, sampling.max_new_tokens, sampling.seed) == (("END",), 9, 7)
    assert asked.asked_by == "ann"
    (plain,) = read().samplings(USUAL, read().form())
    assert (plain.temperature, plain.top_p, plain.seed, plain.stop) == (0.3, 0.6, 11, ())


@pytest.mark.parametrize(
    ("thinking", "switch"),
    [
        (None, None),
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, True),
        ({"type": "enabled", "budget_tokens": 1024}, True),
    ],
)
def test_thinking_switches_thoughts(thinking: Any, switch: bool | None) -> None:
    assert read(thinking=thinking).asked_thinking is switch


def test_a_schema_of_the_output_is_a_grammar() -> None:
    asked = read(output_config={"format": {"type": "json_schema", "schema": {"enum": ["a"]}}})
    grammar = asked.form().grammar
    assert grammar is not None
    assert (grammar.kind, grammar.text) == ("json_schema", '{"enum": ["a"]}')
    with pytest.raises(InvalidInput, match=r"^output_config\.format must be of type"):
        read(output_config={"format": {"type": "xml"}}).form()


# Messages


def test_the_system_prompt_is_text_or_blocks() -> None:
    blocks = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    for system in ("Be kind.", blocks):
        assert messages_of({"role": "user", "content": "Hi"}, system=system) == [
            Message("system", "Be kind."),
            Message("user", "Hi"),
        ]


def test_blocks_become_messages_and_thoughts_are_left_out() -> None:
    assert messages_of(
        {"role": "user", "content": [{"type": "text", "text": "How"}]},
        {"role": "user", "content": "late?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c", "name": "clock", "input": {"zone": "北"}},
                {"type": "tool_use", "id": "d", "name": "clock", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": "Noon."},
                {
                    "type": "tool_result",
                    "tool_use_id": "d",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no zone"}],
                },
                {"type": "text", "text": "And?"},
            ],
        },
        {"role": "system", "content": "Be brief."},
    ) == [
        Message("user", "How\nlate?"),
        Message(
            "assistant",
            "I look.",
            calls=(ToolCall("c", "clock", '{"zone": "北"}'), ToolCall("d", "clock", "{}")),
        ),
        Message("tool", "Noon.", call_id="c"),
        Message("tool", "Error: no zone", call_id="d"),
        Message("user", "And?"),
        Message("system", "Be brief."),
    ]


IMAGE = {"type": "image", "source": {"type": "url", "url": "http://localhost"}}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "user", "content": [IMAGE]}, "messages.1.content.0: a part of type 'image'"),
        ({"role": "assistant", "content": [IMAGE]}, "messages.1.content.0: a part of type 'image'"),
        ({"role": "user", "content": None}, "messages.1.content must be text or a list"),
        ({"role": "user", "content": ["hi"]}, "messages.1.content.0 must be an object"),
        ({"role": "wizard", "content": "hi"}, "messages.1: unknown role 'wizard'"),
        (
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
            "messages.1.content.0: no call before it has the id 'c'",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "tool_result"}]},
            "messages.1.content.1: results of calls must come before other blocks",
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "a b"}]},
            "messages.1.content.0.name must be 1 to 64 letters",
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "a"}]},
            "messages.1.content.0.input must be a JSON object",
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c", "name": "a", "input": {}}],
            },
            "messages.1.content.0: its calls have no results yet",
        ),
    ],
)
def test_what_the_model_cannot_be_shown_is_refused_with_its_place(
    message: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        messages_of({"role": "system", "content": "Hi"}, message)
    assert str(raised.value).startswith(reason)


# Tools


@pytest.mark.parametrize(
    ("rule", "choice"),
    [
        ({"type": "auto"}, ToolChoice("auto")),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice("auto", parallel=False)),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "tool", "name": "clock"}, ToolChoice("required", "clock", parallel=False)),
        ({"type": "none"}, None),
    ],
)
def test_the_choice_of_a_tool_is_read(rule: Any, choice: ToolChoice | None) -> None:
    asked = read(tools=[CLOCK], tool_choice=rule)
    form = asked.form()
    assert form.tool_choice == choice
    assert bool(tools_of(asked.conversation(form))) is (choice is not None)
    assert asked.samplings(USUAL, form)[0].tool_choice == choice


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0: a tool of type 'bash_"),
        ({"tools": [{**CLOCK, "name": "a b"}]}, "tools.0.name must be 1 to 64 letters"),
        ({"tools": [{**CLOCK, "input_schema": 7}]}, "tools.0.input_schema must be an object"),
        ({"tools": [{**CLOCK, "defer_loading": True}]}, "tools.0.defer_loading is not supported"),
        ({"tools": [{**CLOCK, "input_examples": [{}]}]}, "tools.0.input_examples is not supp"),
        ({"tool_choice": {"type": "any"}}, "tool_choice asks for a call, and the request has no"),
        ({"tools": [CLOCK], "tool_choice": {"type": "tool"}}, "tool_choice.name must be 1 to 64"),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "tool", "name": "bell"}},
            "tool_choice: tools has no function with the name bell",
        ),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_by_name(
    more: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        read(**more).form()
    assert str(raised.value).startswith(reason)
