"""Reads functions that are offered and the rule for calling them, in OpenAI's format.

Other formats have the same values in other places: their readers give those to `read_function`
and `choice_among`. Knows nothing of HTTP and of how models write calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from engine.errors import InvalidInput
from engine.message_reading import require_object, require_string
from engine.messages import clean_text
from engine.tools import NO_ARGUMENTS, Tool, ToolChoice, require_function_name, spaced_json

MAX_TOOLS = 128  # OpenAI's limit

ReadTool = Callable[[Mapping[str, Any], str], Tool]
ChoiceMode = Literal["none", "auto", "required"]


def read_chat_tool(item: Mapping[str, Any], place: str) -> Tool:
    """Read a tool of a chat completion, whose function is an object of its own."""
    require_function_type(item, place)
    within = f"{place}.function"
    return read_function(require_object(item.get("function"), within), within)


def require_function_type(item: Mapping[str, Any], place: str) -> None:
    """Raise `InvalidInput` for a tool that is no function."""
    if item.get("type") != "function":
        kind = str(item.get("type"))[:40]
        raise InvalidInput(f"{place}: a tool of type {kind!r} is not supported; only 'function' is")


def read_function(row: Mapping[str, Any], place: str, schema: str = "parameters") -> Tool:
    """Read a function, whose schema of arguments has the name `schema`."""
    name = require_function_name(row.get("name"), f"{place}.name")
    description = require_string(row.get("description") or "", f"{place}.description")
    return Tool(
        name,
        clean_text(description, what="description"),
        _parameters(row.get(schema), f"{place}.{schema}"),
    )


def read_tools(items: Sequence[object], read: ReadTool = read_chat_tool) -> tuple[Tool, ...]:
    """Return the functions of a request; raises `InvalidInput` with the place of what is wrong."""
    if len(items) > MAX_TOOLS:
        raise InvalidInput(f"tools may have at most {MAX_TOOLS} functions")
    places = [f"tools.{number}" for number in range(len(items))]
    tools = tuple(
        read(require_object(item, place), place) for item, place in zip(items, places, strict=True)
    )
    names = [tool.name for tool in tools]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInput(f"tools has two functions with the name {twice[0]}")
    return tools


def read_tool_choice(value: object, *, parallel: bool, tools: Sequence[Tool]) -> ToolChoice | None:
    """Return the rule for calls; None where nothing may be called. Raises `InvalidInput`.

    An object names a function, in itself (responses) or in its `function` (chat completions).
    """
    match value:
        case None:
            return choice_among(tools, "auto", parallel=parallel)
        case "none" | "auto" | "required" as mode:
            return choice_among(tools, mode, parallel=parallel)
        case {"type": "function", "function": {"name": name}} | {"type": "function", "name": name}:
            return choice_among(tools, "required", name, parallel=parallel)
    raise InvalidInput(
        "tool_choice must be 'none', 'auto', 'required' or an object of type 'function'"
        " that names one"
    )


def choice_among(
    tools: Sequence[Tool], mode: ChoiceMode, name: object = None, *, parallel: bool
) -> ToolChoice | None:
    """Return the rule for calls of `tools`, of which `name` is the only one where it is given."""
    if mode == "none":
        return None
    if not tools:
        if mode == "auto":
            return None
        raise InvalidInput("tool_choice asks for a call, and the request has no tools")
    if name is None:
        return ToolChoice(mode, None, parallel)
    wanted = require_function_name(name, "tool_choice: the name")
    if wanted not in [tool.name for tool in tools]:
        raise InvalidInput(f"tool_choice: tools has no function with the name {wanted}")
    return ToolChoice(mode, wanted, parallel=False)


def _parameters(schema: object, place: str) -> str:
    if schema is None:
        return NO_ARGUMENTS
    if require_object(schema, place).get("type", "object") != "object":
        raise InvalidInput(f"{place} must be the schema of an object")
    return clean_text(spaced_json(schema), what="schema")
