"""What a response may ask for: each field of OpenAI's document is served, refused or a label."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.shared_params import Reasoning
from pydantic import ValidationError

from app.web.responses.request import (
    RESPONSE_LABELS,
    UNSUPPORTED_REASONING_FIELDS,
    UNSUPPORTED_RESPONSE_FIELDS,
    ReasoningConfig,
    ResponseRequest,
)
from engine.errors import InvalidInput
from engine.messages import Message, tools_of
from engine.request import SamplingParams
from engine.tools import ToolCall, ToolChoice

USUAL = SamplingParams(temperature=0.3, top_p=0.6, max_new_tokens=8, seed=11)
ASKING: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "background": True,
    "background_options": {"completion_window": "2h"},
    "context_management": [{"type": "compaction"}],
    "conversation": "c",
    "image": {"context_compression": "enabled"},
    "max_tool_calls": 3,
    "moderation": {"model": "m"},
    "prompt": {"id": "p"},
    "prompt_cache_options": {"prewarm": True},
    "service_tier": "priority",
    "stream_options": {"include_obfuscation": True},
}
CLOCK = {"type": "function", "name": "clock", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "c", "name": "clock", "arguments": '{"zone": "北"}'}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "Noon."}
HELLO = {"role": "user", "content": "Hi"}


def read(**more: Any) -> ResponseRequest:
    return ResponseRequest.model_validate({"input": "Hi", **more})


def messages_of(*items: Any, **more: Any) -> list[Message]:
    asked = read(input=list(items), **more)
    return list(asked.conversation(asked.form()))


def test_every_field_of_the_client_is_served_refused_or_a_label() -> None:
    fields = set(ResponseCreateParamsBase.__annotations__) | {"stream"}
    served = set(ResponseRequest.model_fields)
    assert fields <= served | set(UNSUPPORTED_RESPONSE_FIELDS) | set(RESPONSE_LABELS)
    assert not served & set(UNSUPPORTED_RESPONSE_FIELDS)
    reasoning = set(ReasoningConfig.model_fields) | set(UNSUPPORTED_REASONING_FIELDS)
    assert reasoning == set(Reasoning.__annotations__)


@pytest.mark.parametrize("name", UNSUPPORTED_RESPONSE_FIELDS)
def test_an_unsupported_field_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{name} is not supported"):
        read(**{name: ASKING[name]})
    for neutral in (None, *UNSUPPORTED_RESPONSE_FIELDS[name]):
        assert read(**{name: neutral}) == read()


def test_a_summary_of_thoughts_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput, match=r"^reasoning\.summary is not supported"):
        read(reasoning={"effort": "medium", "summary": "auto"})


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"input": None}, "input"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"include": ["reasoning.encrypted_content"]}, "include.0"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_a_value_that_is_not_served_is_refused_at_its_place(
    asked: dict[str, Any], place: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        read(**asked)
    assert ".".join(map(str, raised.value.errors()[0]["loc"])).startswith(place)


def test_sampling_reaches_the_engine_and_the_operators_holds_where_nothing_is_said() -> None:
    asked = read(temperature=1, top_p=0.5, max_output_tokens=3, top_logprobs=2, seed=7, user="ann")
    (sampling,) = asked.samplings(USUAL, asked.form())
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (1, 0.5, 3)
    assert (sampling.logprobs, sampling.seed, asked.asked_by) == (2, 7, "ann")
    assert read().samplings(USUAL, read().form()) == [USUAL]
    wanted = read(include=["message.output_text.logprobs"])
    assert wanted.samplings(USUAL, wanted.form())[0].logprobs == 0


@pytest.mark.parametrize(
    ("reasoning", "switch"),
    [(None, None), ({}, None), ({"effort": "none"}, False), ({"effort": "medium"}, True)],
)
def test_reasoning_switches_thoughts(reasoning: Any, switch: bool | None) -> None:
    assert read(reasoning=reasoning).asked_thinking is switch


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"type": "json_object"}, '{"type": "object"}'),
        ({"type": "json_schema", "name": "a", "schema": {"enum": ["a"]}}, '{"enum": ["a"]}'),
        ({"type": "grammar", "syntax": "regex", "definition": "a+"}, "a+"),
        ({"type": "text"}, None),
    ],
)
def test_the_format_of_the_text_is_a_grammar(given: Any, text: str | None) -> None:
    grammar = read(text={"format": given}).form().grammar
    assert (grammar and grammar.text) == text


def test_a_format_that_is_none_is_refused_at_its_place() -> None:
    for given in ({"type": "xml"}, {"type": "grammar", "syntax": "yacc"}):
        with pytest.raises(InvalidInput, match=r"^text\.format must be of type"):
            read(text={"format": given}).form()


# Input


def test_text_is_a_question_after_the_instructions() -> None:
    asked = read(instructions="Be kind.")
    assert asked.conversation(asked.form()) == (
        Message("system", "Be kind."),
        Message("user", "Hi"),
    )


def test_items_become_messages_and_calls_stand_beside_words() -> None:
    assert messages_of(
        {"type": "message", "role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "How late?"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {
            "type": "message",
            "id": "m",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        CALL,
        {**CALL, "call_id": "d", "arguments": ""},
        RESULT,
        {**RESULT, "call_id": "d", "output": [{"type": "input_text", "text": "One."}]},
    ) == [
        Message("system", "Be kind."),
        Message("user", "How late?"),
        Message(
            "assistant",
            "I look.",
            calls=(ToolCall("c", "clock", '{"zone": "北"}'), ToolCall("d", "clock", "{}")),
        ),
        Message("tool", "Noon.", call_id="c"),
        Message("tool", "One.", call_id="d"),
    ]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("Hi", "input.1 must be an object"),
        ({"type": "item_reference", "id": "x"}, "input.1: an item of type 'item_reference' is not"),
        ({"role": "tool", "content": "4"}, "input.1: the role 'tool' is not supported"),
        ({"role": "wizard", "content": "hi"}, "input.1: unknown role 'wizard'"),
        (
            {"role": "user", "content": [{"type": "input_image"}]},
            "input.1.content.0: a part of type 'input_image' is not supported",
        ),
        (RESULT, "input.1: no call before it has the id 'c'"),
        (CALL, "input.1: its calls have no results yet"),
        ({**CALL, "arguments": "[]"}, "input.1.arguments must be a JSON object"),
        ({**CALL, "name": "a b"}, "input.1.name must be 1 to 64 letters"),
        ({**CALL, "call_id": None}, "input.1.call_id must be a text of 1 to 256"),
        ({**RESULT, "output": 4}, "input.1.output must be text"),
    ],
)
def test_what_the_model_cannot_be_shown_is_refused_with_its_place(item: Any, reason: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        messages_of(HELLO, item)
    assert str(raised.value).startswith(reason)


# Tools


@pytest.mark.parametrize(
    ("more", "choice"),
    [
        ({}, ToolChoice("auto")),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            ToolChoice("required", None, False),
        ),
        (
            {"tool_choice": {"type": "function", "name": "clock"}},
            ToolChoice("required", "clock", False),
        ),
        ({"tool_choice": "none"}, None),
    ],
)
def test_the_choice_of_a_tool_is_read(more: dict[str, Any], choice: ToolChoice | None) -> None:
    asked = read(tools=[CLOCK], **more)
    form = asked.form()
    assert form.tool_choice == choice
    assert bool(tools_of(asked.conversation(form))) is (choice is not None)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0: a tool of type 'web_search' is not supp"),
        ({"tools": [{**CLOCK, "name": "a b"}]}, "tools.0.name must be 1 to 64 letters"),
        ({"tools": [{**CLOCK, "parameters": []}]}, "tools.0.parameters must be an object"),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "allowed_tools"}},
            "tool_choice must be 'none'",
        ),
        ({"tool_choice": "required"}, "tool_choice asks for a call, and the request has no tools"),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_by_name(
    more: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        read(**more).form()
    assert str(raised.value).startswith(reason)
