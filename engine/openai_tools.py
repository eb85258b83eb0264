"""Reads `tools` and `tool_choice` in OpenAI's format.

Knows nothing of HTTP and of how models write calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import InvalidInput
from engine.messages import clean_text
from engine.tools import NO_ARGUMENTS, Tool, ToolChoice, require_function_name, spaced_json

MAX_TOOLS = 128  # OpenAI's limit


def read_tools(items: Sequence[object]) -> tuple[Tool, ...]:
    """Return the functions of a request; raises `InvalidInput` with the place of what is wrong."""
    if len(items) > MAX_TOOLS:
        raise InvalidInput(f"tools may have at most {MAX_TOOLS} functions")
    tools = tuple(_tool(item, f"tools.{place}") for place, item in enumerate(items))
    names = [tool.name for tool in tools]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInput(f"tools has two functions with the name {twice[0]}")
    return tools


def read_tool_choice(value: object, *, parallel: bool, tools: Sequence[Tool]) -> ToolChoice | None:
    """Return the rule for calls; None where nothing may be called. Raises `InvalidInput`."""
    if value == "none":
        return None
    if value in ("auto", None):
        return ToolChoice("auto", parallel=parallel) if tools else None
    name = None if value == "required" else _named(value)
    if not tools:
        raise InvalidInput("tool_choice asks for a call, and the request has no tools")
    if name is not None and name not in [tool.name for tool in tools]:
        raise InvalidInput(f"tool_choice: tools has no function with the name {name}")
    return ToolChoice("required", name, parallel and name is None)


def _named(value: object) -> str:
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or value.get("type") != "function":
        raise InvalidInput(
            "tool_choice must be 'none', 'auto', 'required' or"
            ' {"type": "function", "function": {"name": ...}}'
        )
    name = function.get("name") if isinstance(function, Mapping) else None
    return require_function_name(name, "tool_choice.function.name")


def _tool(item: object, place: str) -> Tool:
    row = _object(item, place)
    if row.get("type") != "function":
        kind = str(row.get("type"))[:40]
        raise InvalidInput(f"{place}: a tool of type {kind!r} is not supported; only 'function' is")
    function = _object(row.get("function"), f"{place}.function")
    name = require_function_name(function.get("name"), f"{place}.function.name")
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise InvalidInput(f"{place}.function.description must be text")
    return Tool(
        name,
        clean_text(description, what="description"),
        _parameters(function.get("parameters"), f"{place}.function.parameters"),
    )


def _parameters(schema: object, place: str) -> str:
    if schema is None:
        return NO_ARGUMENTS
    if _object(schema, place).get("type", "object") != "object":
        raise InvalidInput(f"{place} must be the schema of an object")
    return clean_text(spaced_json(schema), what="schema")


def _object(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{place} must be an object")
    return value
