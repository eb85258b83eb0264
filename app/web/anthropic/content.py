"""Reads messages in Anthropic's format: blocks of text, calls of tools, and their results.

Neighbours of one role are one turn. Thoughts in the conversation are left out, since no model is
shown its earlier ones. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from engine.errors import InvalidInput
from engine.message_reading import (
    read_arguments,
    read_call_id,
    read_content,
    read_conversation,
    read_part,
    require_object,
)
from engine.messages import Message, clean_text
from engine.openai_tools import read_function
from engine.tools import Tool, ToolCall, require_function_name

ROLES_OF_MESSAGES = ("user", "assistant", "system")
THOUGHTS = ("thinking", "redacted_thinking")
# Fields of a tool that change what is done, with the values that request nothing
UNSUPPORTED_TOOL_FIELDS: Mapping[str, tuple[object, ...]] = {
    "allowed_callers": (["direct"],),
    "defer_loading": (False,),
    "input_examples": ([],),
}
PlacedBlock = tuple[str, Mapping[str, Any]]  # with its place in the request


def read_anthropic_messages(system: object, items: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return the messages of a request, the system prompt first; raises `InvalidInput` or
    `InvalidText`."""
    said = read_content(system, "system")
    turns = (message for role, blocks in _turns(items) for message in _messages(role, blocks))
    return [*([Message("system", said)] if said else []), *read_conversation(turns)]


def read_anthropic_tool(item: Mapping[str, Any], place: str) -> Tool:
    """Read a tool of the client's own; those that Anthropic's servers run are refused."""
    if (kind := item.get("type") or "custom") != "custom":
        raise InvalidInput(f"{place}: a tool of type {str(kind)[:40]!r} is not supported")
    for name, neutral in UNSUPPORTED_TOOL_FIELDS.items():
        if item.get(name) is not None and item[name] not in neutral:
            raise InvalidInput(f"{place}.{name} is not supported; leave it out")
    return read_function(item, place, "input_schema")


def _turns(items: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[PlacedBlock]]]:
    """Yield each turn's role and blocks."""
    placed = [(f"messages.{number}", item) for number, item in enumerate(items)]
    for role, group in groupby(placed, lambda each: _role(each[1], each[0])):
        yield role, [block for place, item in group for block in _blocks(item, place)]


def _role(item: Mapping[str, Any], place: str) -> str:
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES_OF_MESSAGES:
        known = ", ".join(ROLES_OF_MESSAGES)
        raise InvalidInput(f"{place}: unknown role {str(role)[:40]!r}; known roles: {known}")
    return role


def _blocks(item: Mapping[str, Any], place: str) -> Iterator[PlacedBlock]:
    content, within = item.get("content"), f"{place}.content"
    if isinstance(content, str):
        yield within, {"type": "text", "text": content}
    elif isinstance(content, list):
        for number, block in enumerate(content):
            yield f"{within}.{number}", require_object(block, f"{within}.{number}")
    else:
        raise InvalidInput(f"{within} must be text or a list of blocks")


def _messages(role: str, blocks: list[PlacedBlock]) -> Iterator[tuple[str, Message]]:
    """Yield a turn's messages with their places: one, or results of calls and then one."""
    place = blocks[0][0] if blocks else "messages"
    if role == "assistant":
        calls = tuple(_call(row, at) for at, row in blocks if row.get("type") == "tool_use")
        rest = [block for block in blocks if block[1].get("type") not in ("tool_use", *THOUGHTS)]
        yield place, Message("assistant", _text(rest), calls=calls)
        return
    if role == "system":
        yield place, Message("system", _text(blocks))
        return
    rest = [block for block in blocks if block[1].get("type") != "tool_result"]
    for number, (at, row) in enumerate(blocks[: len(blocks) - len(rest)]):
        if row.get("type") != "tool_result":
            late = next(at for at, row in blocks[number:] if row.get("type") == "tool_result")
            raise InvalidInput(f"{late}: results of calls must come before other blocks")
        yield at, _result(row, at)
    if rest or not blocks:
        yield place, Message("user", _text(rest))


def _text(blocks: list[PlacedBlock]) -> str:
    return clean_text("\n".join(read_part(block, place) for place, block in blocks))


def _call(row: Mapping[str, Any], place: str) -> ToolCall:
    return ToolCall(
        read_call_id(row.get("id"), f"{place}.id"),
        require_function_name(row.get("name"), f"{place}.name"),
        read_arguments(row.get("input"), f"{place}.input"),
    )


def _result(row: Mapping[str, Any], place: str) -> Message:
    """A result; one that `is_error` says so, since a model reads text alone."""
    said = read_content(row.get("content"), f"{place}.content")
    shown = f"Error: {said}" if row.get("is_error") is True else said
    return Message(
        "tool", shown, call_id=read_call_id(row.get("tool_use_id"), f"{place}.tool_use_id")
    )
