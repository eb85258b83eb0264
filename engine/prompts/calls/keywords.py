"""Calls written as Python: `tool_call(city="Paris", days=2)`, the form of ChatGLM3.

Arguments are JSON everywhere else, so they are written from JSON and read back into it. A name
that Python does not allow stands in a dictionary: `tool_call(**{"my-city": "Paris"})`. Nothing is
evaluated. Source of the form: `PROMPT_en.md` of the published ChatGLM3.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from keyword import iskeyword
from typing import Any

from engine.prompts.calls.formats import CallFormat
from engine.tools import FUNCTION_NAME, Spoken, spaced_json

ARGUMENT_NAME = r"[^\W\d]\w*"  # of an argument
HEAD = re.compile(
    rf'\s*(?:(?P<name>{ARGUMENT_NAME})\s*=|\*\*\{{\s*(?P<quoted>"(?:[^"\\]|\\.)*")\s*:)'
)
# Brackets, strings in either kind of quotes, and the two signs that end a value
PIECE = re.compile(r""""(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[(\[{]|[)\]}]|,""", re.DOTALL)
SECOND_LINE = re.compile(rf"\A(\s*{FUNCTION_NAME}\n) (?=`|\Z)")
CLOSED = re.compile(r"\s*,?\s*\)")
PYTHON_CONSTANTS = {True: "True", False: "False", None: "None"}


class KeywordCallFormat(CallFormat):
    """A format whose calls have keyword arguments; `after` ends with the opening bracket."""

    opens_arguments = ""

    def read(self, text: str, *, finished: bool = True) -> Spoken:
        """See `CallFormat`. A blank may begin the second line, since it is a text of its own for
        the tokenizer."""
        return super().read(SECOND_LINE.sub(r"\1", text), finished=finished)

    def write_arguments(self, arguments: str) -> str:
        """Keyword arguments from a JSON object."""
        given: dict[str, Any] = json.loads(arguments)
        placed = ((place_of_argument(name), value) for name, value in given.items())
        return ", ".join(f"{head}{_literal(value)}{tail}" for (head, tail), value in placed)

    def read_arguments(self, text: str, begin: int) -> tuple[str, int | None]:
        """The JSON of the whole arguments from `begin` on, and the position behind the last one.

        That is None where the call is cut off, whose JSON then lacks its closing brace.
        """
        found, at = [], begin
        for name, value, end in _arguments(text, begin):
            found.append(f"{spaced_json(name)}: {value}")
            at = end
        closed = CLOSED.match(text, at)
        written = ", ".join(found)
        return f"{{{written}{'}' if closed else ''}", closed.end() if closed else None


def place_of_argument(name: str) -> tuple[str, str]:
    """The text before and behind the value of an argument."""
    if re.fullmatch(ARGUMENT_NAME, name) and not iskeyword(name):
        return f"{name}=", ""
    return f"**{{{spaced_json(name)}: ", "}"


def _arguments(text: str, begin: int) -> Iterator[tuple[str, str, int]]:
    """(name, value as JSON, position of the sign behind it) of each argument that is whole."""
    at = begin
    while head := HEAD.match(text, at):
        end = _end_of_value(text, head.end())
        if end is None:
            return
        written = text[head.end() : end].strip()
        if head["name"] is None:
            if text[end] != "}":
                return
            end += 1
        name = head["name"] or json.loads(head["quoted"])
        yield name, _as_json(written), end
        if text[end : end + 1] != ",":
            return
        at = end + 1


def _end_of_value(text: str, begin: int) -> int | None:
    """The position of the comma or closing bracket that ends a value; None if it is cut off."""
    depth = 0
    for piece in PIECE.finditer(text, begin):
        sign = piece[0]
        if sign in "([{":
            depth += 1
        elif sign in ")]}" and depth:
            depth -= 1
        elif sign in ")]}," and not depth:
            return piece.start()
    return None


def _as_json(written: str) -> str:
    """A literal of JSON or Python as JSON; other text is the string that it looks like."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(written)
            json.dumps(value, allow_nan=False)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        return spaced_json(value)
    return spaced_json(written)


def _literal(value: Any) -> str:
    """A JSON value as a literal of Python."""
    if isinstance(value, dict):
        items = (f"{spaced_json(name)}: {_literal(each)}" for name, each in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if value is None or isinstance(value, bool):
        return PYTHON_CONSTANTS[value]
    return spaced_json(value)


CHATGLM3 = KeywordCallFormat(
    "chatglm3",
    before="",
    after="\n```python\ntool_call(",
    behind=")\n```",
    parallel=False,
    dialect="glm",
)
