"""Reads messages in OpenAI's format.

Text parts are joined by line ends, as in llama.cpp and vLLM; `developer` is OpenAI's newer name for
`system`. Content that cannot be shown to the model is refused with the message's position, so that
nothing is left out silently. Knows nothing of HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import InvalidInput
from engine.messages import Message, Role, clean_text
from engine.tools import Tool, ToolCall, require_function_name, spaced_json

ROLES_OF_DOCUMENT: Mapping[str, Role] = {
    "assistant": "assistant",
    "developer": "system",
    "system": "system",
    "tool": "tool",
    "user": "user",
}
MAX_CALL_ID_CHARS = 256
# Null and empty values are accepted
UNSUPPORTED_PARTS = ("function_call", "refusal", "audio")


def messages_of(
    items: Sequence[Mapping[str, Any]], tools: tuple[Tool, ...] = ()
) -> tuple[Message, ...]:
    """Return the messages of a request, in which a system message offers its tools.

    Raises `InvalidInput` or `InvalidText`.
    """
    messages: list[Message] = []
    called: set[str] = set()
    for place, item in enumerate(items):
        message = _message(item, f"messages.{place}")
        if message.role == "tool" and message.call_id not in called:
            raise InvalidInput(f"messages.{place}: no call before it has its tool_call_id")
        called |= {call.id for call in message.calls}
        messages.append(message)
    if messages and messages[-1].calls:
        raise InvalidInput(f"messages.{len(messages) - 1}: its calls have no results yet")
    if not tools:
        return tuple(messages)
    if messages[-1].role == "assistant":
        raise InvalidInput("tools: an answer that is given in part cannot be offered tools")
    if messages[0].role == "system":
        return (replace(messages[0], tools=tools), *messages[1:])
    return (Message("system", "", tools=tools), *messages)


def _message(item: Mapping[str, Any], place: str) -> Message:
    role = item.get("role")
    if role == "function":
        raise InvalidInput(f"{place}: the role 'function' is not supported; use 'tool'")
    if not isinstance(role, str) or role not in ROLES_OF_DOCUMENT:
        known = ", ".join(ROLES_OF_DOCUMENT)
        raise InvalidInput(f"{place}: unknown role {str(role)[:40]!r}; known roles: {known}")
    for name in UNSUPPORTED_PARTS:
        if item.get(name):
            raise InvalidInput(f"{place}: {name!r} is not supported; leave it out")
    if role != "assistant" and item.get("tool_calls"):
        raise InvalidInput(f"{place}: only the assistant makes tool_calls")
    result_of, its_place = item.get("tool_call_id"), f"{place}.tool_call_id"
    call_id = _call_id(result_of, its_place) if role == "tool" else ""
    return Message(
        ROLES_OF_DOCUMENT[role],
        clean_text(_content(item.get("content"), place)),
        calls=_calls(item.get("tool_calls") or [], f"{place}.tool_calls"),
        call_id=call_id,
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
        _call_id(item.get("id"), f"{place}.id"),
        require_function_name(function.get("name"), f"{place}.function.name"),
        _arguments(function.get("arguments"), f"{place}.function.arguments"),
    )


def _call_id(value: object, place: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CALL_ID_CHARS:
        raise InvalidInput(f"{place} must be a text of 1 to {MAX_CALL_ID_CHARS} characters")
    return clean_text(value, what="id")


def _arguments(value: object, place: str) -> str:
    """The arguments of a call as JSON; an empty text is an empty object."""
    try:
        arguments = json.loads(value or "{}") if isinstance(value, str) else None
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidInput(f"{place} must be a JSON object, as text")
    return clean_text(spaced_json(arguments), what="arguments")


def _content(content: object, place: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part(part, f"{place}.content.{i}") for i, part in enumerate(content))
    raise InvalidInput(f"{place}.content must be text, a list of parts or null")


def _part(part: object, place: str) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InvalidInput(f"{place} must be an object with a 'type'")
    if part["type"] != "text":
        kind = part["type"][:40]
        raise InvalidInput(f"{place}: a part of type {kind!r} is not supported; only 'text' is")
    if not isinstance(part.get("text"), str):
        raise InvalidInput(f"{place}.text must be text")
    return str(part["text"])
