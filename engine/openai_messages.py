"""Reads messages in the format of OpenAI's chat completions.

`developer` is OpenAI's newer name for `system`. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import InvalidInput
from engine.message_reading import (
    read_arguments,
    read_call_id,
    read_content,
    read_conversation,
    with_tools,
)
from engine.messages import Message, Role
from engine.tools import Tool, ToolCall, require_function_name

ROLES_OF_DOCUMENT: Mapping[str, Role] = {
    "assistant": "assistant",
    "developer": "system",
    "system": "system",
    "tool": "tool",
    "user": "user",
}
# Null and empty values are accepted
UNSUPPORTED_PARTS = ("function_call", "refusal", "audio")


def messages_of(
    items: Sequence[Mapping[str, Any]], tools: tuple[Tool, ...] = ()
) -> tuple[Message, ...]:
    """Return the messages of a request, in which a system message offers its tools.

    Raises `InvalidInput` or `InvalidText`.
    """
    places = (f"messages.{number}" for number in range(len(items)))
    placed = ((place, _message(item, place)) for place, item in zip(places, items, strict=True))
    return with_tools(read_conversation(placed), tools)


def require_role(role: object, place: str) -> Role:
    """Return the role that a name of OpenAI's stands for; raises `InvalidInput`."""
    if not isinstance(role, str) or role not in ROLES_OF_DOCUMENT:
        known = ", ".join(ROLES_OF_DOCUMENT)
        raise InvalidInput(f"{place}: unknown role {str(role)[:40]!r}; known roles: {known}")
    return ROLES_OF_DOCUMENT[role]


def _message(item: Mapping[str, Any], place: str) -> Message:
    role = item.get("role")
    if role == "function":
        raise InvalidInput(f"{place}: the role 'function' is not supported; use 'tool'")
    known = require_role(role, place)
    for name in UNSUPPORTED_PARTS:
        if item.get(name):
            raise InvalidInput(f"{place}: {name!r} is not supported; leave it out")
    if role != "assistant" and item.get("tool_calls"):
        raise InvalidInput(f"{place}: only the assistant makes tool_calls")
    result_of, its_place = item.get("tool_call_id"), f"{place}.tool_call_id"
    return Message(
        known,
        read_content(item.get("content"), f"{place}.content"),
        calls=_calls(item.get("tool_calls") or [], f"{place}.tool_calls"),
        call_id=read_call_id(result_of, its_place) if role == "tool" else "",
    )


def _calls(items: object, place: str) -> tuple[ToolCall, ...]:
    if not isinstance(items, list):
        raise InvalidInput(f"{place} must be a list")
    return tuple(_call(item, f"{place}.{number}") for number, item in enumerate(items))


def _call(item: object, place: str) -> ToolCall:
    function = item.get("function") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(function, dict):
        raise InvalidInput(f"{place} must be an object with an 'id' and a 'function'")
    return ToolCall(
        read_call_id(item.get("id"), f"{place}.id"),
        require_function_name(function.get("name"), f"{place}.function.name"),
        read_arguments(function.get("arguments"), f"{place}.function.arguments"),
    )
