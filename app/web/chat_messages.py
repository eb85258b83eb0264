"""Reads messages in OpenAI's format.

Text parts are joined by line ends, as in llama.cpp and vLLM; `developer` is OpenAI's newer name for
`system`. Content that cannot be shown to the model is refused with the message's position, so that
nothing is left out silently. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import InvalidInput
from engine.messages import Message, Role, clean_text

ROLES_OF_DOCUMENT: Mapping[str, Role] = {
    "assistant": "assistant",
    "developer": "system",
    "system": "system",
    "user": "user",
}
TOOL_ROLES = ("tool", "function")
# Null and empty values are accepted
UNSUPPORTED_PARTS = ("tool_calls", "function_call", "refusal", "audio")


def messages_of(items: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Return the messages of a request; raises `InvalidInput` or `InvalidText`."""
    return tuple(_message(item, f"messages.{place}") for place, item in enumerate(items))


def _message(item: Mapping[str, Any], place: str) -> Message:
    role = item.get("role")
    if role in TOOL_ROLES:
        raise InvalidInput(f"{place}: the role {role!r} is not supported; leave tool calls out")
    if not isinstance(role, str) or role not in ROLES_OF_DOCUMENT:
        known = ", ".join(ROLES_OF_DOCUMENT)
        raise InvalidInput(f"{place}: unknown role {str(role)[:40]!r}; known roles: {known}")
    for name in UNSUPPORTED_PARTS:
        if item.get(name):
            raise InvalidInput(f"{place}: {name!r} is not supported; leave it out")
    return Message(ROLES_OF_DOCUMENT[role], clean_text(_content(item.get("content"), place)))


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
