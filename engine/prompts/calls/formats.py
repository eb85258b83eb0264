"""The texts in which models write calls of functions, one value for each format.

A text of a format can be written, recognised as it grows, and bound by a grammar
(`calls.grammar`), all from the same few pieces. Knows texts; knows no tokens and no templates.

    format    as published with
    hermes    Hermes 2 Pro, Qwen2.5, Qwen3; ours for templates without tools (`as_plain`)
    llama3    Llama 3.1 to 3.3: JSON with "parameters", after <|python_tag|> or without it
    mistral   Mistral 7B v0.3 to Small 3.1: a JSON list after [TOOL_CALLS]
    mistral11 Mistral Small 3.2 and later: [TOOL_CALLS]name[ARGS]{...}
    glm4      GLM-4: the name, a line end, the arguments

ChatGLM3's form, whose arguments are Python's keywords, is in `calls.keywords`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

from engine.prompts.reasoning import without_part_of
from engine.tools import FUNCTION_NAME, Spoken, WrittenCall

Dialect = Literal["openai", "glm"]  # how a chat template reads calls: see `calls.messages`


@dataclass(frozen=True)
class CallFormat:
    """Implements `CallReader`.

    An answer is words, then `trigger`, `opening` and calls with `between` them, then `closing`. A
    call is `before`, its name, `after`, its arguments as a JSON object, `behind`. Words never hold
    the `trigger`. In a format without one, an answer is words or a call, and words never begin as a
    call does; `optional` may stand before it. Only where `parallel` can one answer call several
    times.
    """

    opens_arguments: ClassVar[str] = "{"

    name: str
    before: str
    after: str
    behind: str = ""
    trigger: str = ""
    opening: str = ""
    between: str = ""
    closing: str = ""
    optional: str = ""
    parallel: bool = True
    dialect: Dialect = "openai"
    short_ids: bool = False  # the template takes ids of nine letters and digits alone

    @property
    def markup(self) -> str:
        """All of its texts, for a search in them."""
        parts = (self.optional, self.trigger, self.opening, self.before, self.after, self.behind)
        return "\0".join([*parts, self.between, self.closing])

    def write(self, calls: Iterable[WrittenCall]) -> str:
        """The text of one or more calls."""
        arguments = self.write_arguments
        written = (
            f"{self.before}{c.name}{self.after}{arguments(c.arguments)}{self.behind}" for c in calls
        )
        return f"{self.trigger}{self.opening}{self.between.join(written)}{self.closing}"

    def write_arguments(self, arguments: str) -> str:
        """The text of a call's arguments, which are a JSON object."""
        return arguments

    def read_arguments(self, text: str, begin: int) -> tuple[str, int | None]:
        """The JSON of arguments that begin at a position, and where they end; None if they do not.

        It only grows with the text, and is an object only where it ends.
        """
        end = _end_of_object(text, begin)
        return text[begin:end], end

    def read(self, text: str, *, finished: bool = True) -> Spoken:
        """Split an answer's text into words and calls.

        While it grows (not `finished`), words, names and arguments only grow: what may yet turn out
        to be markup is held back.
        """
        return (
            self._read_marked(text, finished) if self.trigger else self._read_bare(text, finished)
        )

    def _read_marked(self, text: str, finished: bool) -> Spoken:
        words, trigger, rest = text.partition(self.trigger)
        if trigger:
            return Spoken(words.rstrip(), self._calls(rest.removeprefix(self.opening)))
        return Spoken(words if finished else without_part_of(self.trigger, words).rstrip())

    def _read_bare(self, text: str, finished: bool) -> Spoken:
        said = text.lstrip().removeprefix(self.optional)
        if calls := self._calls(said):
            return Spoken("", calls)
        held = not finished and (
            self._may_become_call(said) or self.optional.startswith(text.lstrip())
        )
        return Spoken("" if held else text)

    def _calls(self, text: str) -> tuple[WrittenCall, ...]:
        """The calls at the beginning of a text; the last may lack its end."""
        calls: list[WrittenCall] = []
        at = 0
        while head := self._head.match(text, at):
            arguments, end = self.read_arguments(text, head.end("head"))
            calls.append(WrittenCall(head["name"], arguments))
            if end is None or not self.parallel:
                break
            at = end + len(self.behind) + len(self.between)
        return tuple(calls)

    @cached_property
    def _head(self) -> re.Pattern[str]:
        before, after = re.escape(self.before), re.escape(self.after)
        opens = re.escape(self.opens_arguments)
        return re.compile(rf"(?P<head>{before}(?P<name>{FUNCTION_NAME}){after}){opens}")

    def _may_become_call(self, text: str) -> bool:
        if len(text) <= len(self.before):
            return self.before.startswith(text)
        begun = re.match(re.escape(self.before) + FUNCTION_NAME, text)
        return begun is not None and f"{self.after}{self.opens_arguments}".startswith(
            text[begun.end() :]
        )


HERMES = CallFormat(
    "hermes",
    trigger="<tool_call>",
    opening="\n",
    before='{"name": "',
    after='", "arguments": ',
    behind="}",
    between="\n</tool_call>\n<tool_call>\n",
    closing="\n</tool_call>",
)
LLAMA3 = CallFormat(
    "llama3",
    optional="<|python_tag|>",
    before='{"name": "',
    after='", "parameters": ',
    behind="}",
    parallel=False,
)
MISTRAL = CallFormat(
    "mistral",
    trigger="[TOOL_CALLS]",
    opening="[",
    before='{"name": "',
    after='", "arguments": ',
    behind="}",
    between=", ",
    closing="]",
    short_ids=True,
)
MISTRAL_SPACED = replace(MISTRAL, opening=" [")
MISTRAL11 = CallFormat(
    "mistral11",
    trigger="[TOOL_CALLS]",
    before="",
    after="[ARGS]",
    between="[TOOL_CALLS]",
    short_ids=True,
)
GLM4 = CallFormat("glm4", before="", after="\n", parallel=False, dialect="glm")
CALL_FORMATS = (HERMES, LLAMA3, MISTRAL, MISTRAL_SPACED, MISTRAL11, GLM4)


def _end_of_object(text: str, begin: int) -> int | None:
    """The end of the JSON object that begins at `begin`; None if it has none."""
    depth = 0
    for piece in re.finditer(r'"(?:[^"\\]|\\.)*"?|[{}]', text[begin:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(piece[0], 0)
        if not depth:
            return begin + piece.end()
    return None
