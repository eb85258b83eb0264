"""Functions that a model may call, its calls, and the rule for them: OpenAI's terms as values.

Knows JSON and names; knows nothing of the texts in which a model writes calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, Protocol

from engine.errors import InvalidInput

FUNCTION_NAME = r"[A-Za-z0-9_-]{1,64}"  # OpenAI's rule
NO_ARGUMENTS = '{"type": "object", "properties": {}, "additionalProperties": false}'


def require_function_name(name: object, what: str) -> str:
    """Return a function's name; raises `InvalidInput`."""
    if not isinstance(name, str) or not re.fullmatch(FUNCTION_NAME, name):
        raise InvalidInput(f"{what} must be 1 to 64 letters, digits, underscores and hyphens")
    return name


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that is offered. `parameters` is a JSON Schema of an object, as JSON."""

    name: str
    description: str = ""
    parameters: str = NO_ARGUMENTS

    def as_dict(self) -> dict[str, Any]:
        """The shape of OpenAI's `tools` and of those that chat templates read."""
        described = {"description": self.description} if self.description else {}
        function = {"name": self.name, **described, "parameters": json.loads(self.parameters)}
        return {"type": "function", "function": function}

    def as_row(self) -> dict[str, str]:
        """The shape that is stored: with the schema as text, since the order of its keys counts."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Tool:
        """Inverse of `as_row`."""
        return cls(row["name"], row["description"], row["parameters"])


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function. `arguments` is a JSON object, as JSON; `id` names it for its result."""

    id: str
    name: str
    arguments: str

    def as_dict(self) -> dict[str, Any]:
        """The shape of OpenAI's `tool_calls`."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> ToolCall:
        """Inverse of `as_dict`."""
        return cls(item["id"], item["function"]["name"], item["function"]["arguments"])


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The permission or duty to call: which function (`name`), and whether several times."""

    mode: Literal["auto", "required"] = "auto"
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A call as it stands in an answer; while the answer grows, its arguments may be cut off."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """New text of the call `index` of an answer: its name first, then its arguments."""

    index: int
    name: str  # "" after the first piece
    arguments: str


def new_call_pieces(
    calls: Sequence[WrittenCall], sent: Sequence[WrittenCall]
) -> tuple[CallPiece, ...]:
    """The pieces of calls that have grown since they were sent."""
    pieces = []
    for index, (call, before) in enumerate(zip_longest(calls, sent)):
        if before is None:
            pieces.append(CallPiece(index, call.name, call.arguments))
        elif call != before:
            pieces.append(CallPiece(index, "", call.arguments[len(before.arguments) :]))
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer without its markup: what it says, and what it calls."""

    content: str
    calls: tuple[WrittenCall, ...] = ()


class CallReader(Protocol):
    """A reader of answers that may call tools."""

    def read(self, text: str, *, finished: bool = True) -> Spoken:
        """Split an answer's text into words and calls.

        While it grows (not `finished`), words, names and arguments only grow.
        """


def spaced_json(value: object) -> str:
    """JSON as chat templates and models write it: blanks after commas and colons, no escapes."""
    return json.dumps(value, ensure_ascii=False)


def with_strings_changed(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with `change` applied to every string in it, keys included.

    A number becomes a string where `change` alters its digits.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(k): with_strings_changed(v, change) for k, v in value.items()}
    if isinstance(value, list):
        return [with_strings_changed(each, change) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        changed = change(str(value))
        return value if changed == str(value) else changed
    return value
