"""Reads the input of OpenAI's responses: messages, calls of functions, and their results.

A call stands beside the words that came before it, in one message of the assistant. Thoughts are
left out, since no model is shown its earlier ones. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import InvalidInput
from engine.message_reading import (
    read_arguments,
    read_call_id,
    read_content,
    read_conversation,
    require_object,
)
from engine.messages import Message, clean_text
from engine.openai_messages import require_role
from engine.openai_tools import read_function, require_function_type
from engine.tools import Tool, ToolCall, require_function_name

TEXT_PARTS = ("input_text", "output_text", "text")
Placed = tuple[str, Message]


def read_response_input(
    given: str | Sequence[object], instructions: str = "", earlier: Sequence[Message] = ()
) -> tuple[Message, ...]:
    """Return the messages of a request: the instructions, what was said earlier, and the input.

    Raises `InvalidInput` or `InvalidText`.
    """
    placed: list[Placed] = []
    if instructions:
        placed.append(("instructions", Message("system", clean_text(instructions))))
    placed += [("previous_response_id", message) for message in earlier]
    if isinstance(given, str):
        placed.append(("input", Message("user", clean_text(given))))
    else:
        placed += _with_calls_beside_words(_messages(given))
    return read_conversation(placed)


def read_response_tool(item: Mapping[str, Any], place: str) -> Tool:
    """Read a function; other tools, which OpenAI's servers run, are refused."""
    require_function_type(item, place)
    return read_function(item, place)


def _messages(items: Sequence[object]) -> Iterator[Placed]:
    for number, given in enumerate(items):
        place = f"input.{number}"
        item = require_object(given, place)
        match item.get("type") or "message":
            case "message":
                yield place, _message(item, place)
            case "function_call":
                yield place, Message("assistant", "", calls=(_call(item, place),))
            case "function_call_output":
                said = read_content(item.get("output"), f"{place}.output", TEXT_PARTS)
                call_id = read_call_id(item.get("call_id"), f"{place}.call_id")
                yield place, Message("tool", said, call_id=call_id)
            case "reasoning":
                pass
            case kind:
                name = str(kind)[:40]
                raise InvalidInput(f"{place}: an item of type {name!r} is not supported")


def _message(item: Mapping[str, Any], place: str) -> Message:
    role = require_role(item.get("role"), place)
    if role == "tool":
        raise InvalidInput(f"{place}: the role 'tool' is not supported; use a function_call_output")
    return Message(role, read_content(item.get("content"), f"{place}.content", TEXT_PARTS))


def _call(item: Mapping[str, Any], place: str) -> ToolCall:
    return ToolCall(
        read_call_id(item.get("call_id"), f"{place}.call_id"),
        require_function_name(item.get("name"), f"{place}.name"),
        read_arguments(item.get("arguments"), f"{place}.arguments"),
    )


def _with_calls_beside_words(placed: Iterable[Placed]) -> list[Placed]:
    """Join calls that follow each other, or the assistant's words, into one message."""
    joined: list[Placed] = []
    for place, message in placed:
        if message.calls and joined and joined[-1][1].role == "assistant":
            first, before = joined[-1]
            joined[-1] = first, replace(before, calls=before.calls + message.calls)
        else:
            joined.append((place, message))
    return joined
