"""LlamaIndex's model for OpenAI-like servers against the running server: `make client-suite`.

It brings packages of other versions, so it has an environment of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip(
    "llama_index.llms.openai_like",
    reason="needs llama-index-llms-openai-like in an environment of its own: make client-suite",
)

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from engine.prompts.calls.formats import HERMES
from engine.tools import WrittenCall
from tests.app.conftest import Played, Shared

HELLO = [ChatMessage(role="user", content="Say hello.")]


def model_at(url: str, **more: Any) -> Any:
    return OpenAILike(
        model="live",
        api_base=f"{url}/v1",
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
        **{"temperature": 0, "max_tokens": 12, **more},
    )


def count_days(city: str, days: int) -> str:
    """Count the warm days of a city."""
    return f"{city}: {days}"


def test_an_answer_is_the_same_at_once_streamed_and_asynchronous(shared: Shared) -> None:
    model = model_at(shared.url)
    text = model.chat(HELLO).message.content
    assert text
    assert "".join(piece.delta or "" for piece in model.stream_chat(HELLO)) == text
    assert model.complete("Say hello.").text == text

    async def later() -> list[str]:
        whole = await model.achat(HELLO)
        stream = await model.astream_chat(HELLO)
        return [whole.message.content, "".join([piece.delta or "" async for piece in stream])]

    assert asyncio.run(later()) == [text, text]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_with_valid_arguments(shared: Shared, stream: bool) -> None:
    model = model_at(shared.url, temperature=1.0, max_tokens=300)
    tool = FunctionTool.from_defaults(count_days)
    asked: dict[str, Any] = {
        "tools": [tool],
        "user_msg": "How many days are warm in Oslo?",
        "tool_required": True,
        "allow_parallel_tool_calls": False,
    }
    answer = list(model.stream_chat_with_tools(**asked))[-1] if stream else None
    answer = answer or model.chat_with_tools(**asked)
    for call in model.get_tool_calls_from_response(answer, error_on_no_tool_call=False):
        assert call.tool_name == "count_days"
        assert set(call.tool_kwargs) <= {"city", "days"}


def test_a_call_and_its_result_are_shown_to_the_model(played: Played) -> None:
    played.engine.says = HERMES.write([WrittenCall("count_days", '{"city": "Rome", "days": 1}')])
    model, tool = model_at(played.url, max_tokens=90), FunctionTool.from_defaults(count_days)
    asked = ChatMessage(role="user", content="Where is it warm?")
    called = model.chat_with_tools([tool], chat_history=[asked])
    (call,) = model.get_tool_calls_from_response(called)
    assert call.tool_kwargs == {"city": "Rome", "days": 1}
    result = ChatMessage(
        role="tool",
        content=str(tool.call(**call.tool_kwargs)),
        additional_kwargs={"tool_call_id": call.tool_id},
    )
    played.engine.says = "In Rome."
    assert model.chat([asked, called.message, result]).message.content == "In Rome."
    shown = played.engine.requests[-1].messages
    assert [(m.role, m.content) for m in shown[-3:]] == [
        ("user", "Where is it warm?"),
        ("assistant", ""),
        ("tool", "Rome: 1"),
    ]
