"""Reads what messages have in every format of the HTTP API: text, calls, and results of calls.

Content that cannot be shown to the model is refused with its place in the request, so that nothing
is left out silently. Knows nothing of HTTP and of any one format.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from engine.errors import InvalidInput
from engine.messages import Message, clean_text
from engine.tools import Tool, spaced_json

MAX_CALL_ID_CHARS = 256


def read_conversation(placed: Iterable[tuple[str, Message]]) -> tuple[Message, ...]:
    """Return messages that come with their places in the request.

    Raises `InvalidInput` for a result without a call before it, and for calls that end the
    conversation.
    """
    messages: list[Message] = []
    called: set[str] = set()
    place = ""
    for place, message in placed:
        if message.role == "tool" and message.call_id not in called:
            raise InvalidInput(f"{place}: no call before it has the id {message.call_id[:80]!r}")
        called |= {call.id for call in message.calls}
        messages.append(message)
    if messages and messages[-1].calls:
        raise InvalidInput(f"{place}: its calls have no results yet")
    return tuple(messages)


def with_tools(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> tuple[Message, ...]:
    """Return the messages, in which a system message offers the tools."""
    if not tools:
        return messages
    if messages and messages[0].role == "system":
        return (replace(messages[0], tools=tools), *messages[1:])
    return (Message("system", "", tools=tools), *messages)


def read_call_id(value: object, place: str) -> str:
    """Return the id of a call; raises `InvalidInput`."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CALL_ID_CHARS:
        raise InvalidInput(f"{place} must be a text of 1 to {MAX_CALL_ID_CHARS} characters")
    return clean_text(value, what="id")


def read_arguments(value: object, place: str) -> str:
    """Return the arguments of a call as JSON; an empty text is an empty object."""
    try:
        arguments = json.loads(value or "{}") if isinstance(value, str) else value
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidInput(f"{place} must be a JSON object")
    return clean_text(spaced_json(arguments), what="arguments")


def read_content(content: object, place: str, types: Collection[str] = ("text",)) -> str:
    """Return the text of a content: null, text, or parts of the given types.

    Parts are joined by line ends, as in llama.cpp and vLLM.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return clean_text(content)
    if not isinstance(content, list):
        raise InvalidInput(f"{place} must be text, a list of parts or null")
    parts = (read_part(part, f"{place}.{i}", types) for i, part in enumerate(content))
    return clean_text("\n".join(parts))


def read_part(part: object, place: str, types: Collection[str] = ("text",)) -> str:
    """Return the text of one part of a content."""
    kind = require_object(part, place).get("type")
    if not isinstance(kind, str):
        raise InvalidInput(f"{place} must be an object with a 'type'")
    if kind not in types:
        known = " and ".join(map(repr, types))
        raise InvalidInput(f"{place}: a part of type {kind[:40]!r} is not supported; use {known}")
    return require_string(require_object(part, place).get("text"), f"{place}.text")


def require_string(value: object, place: str) -> str:
    """Return a text; raises `InvalidInput` for anything else."""
    if not isinstance(value, str):
        raise InvalidInput(f"{place} must be text")
    return value


def require_object(value: object, place: str) -> Mapping[str, Any]:
    """Return a JSON object; raises `InvalidInput` for anything else."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{place} must be an object")
    return value
