"""Tools in the API: what a model writes becomes calls, for the clients that people use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from engine.prompts.calls.formats import HERMES
from engine.tools import WrittenCall
from tests.app.clients.weather_tools import QUESTION, TOOLS
from tests.app.conftest import Played

TWO = HERMES.write(
    [WrittenCall("weather", '{"city": "Rome", "days": 1}'), WrittenCall("clock", "{}")]
)


@pytest.fixture(scope="module")
def stage(api_stage: Played) -> Played:
    """No page is looked at here, and no answer on its way."""
    return api_stage


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
