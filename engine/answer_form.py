"""The form of an answer: words and calls of the tools that are offered, or text of one language.

`response_format` is read here alone, for the HTTP API and for LangChain's chat model. Knows nothing
of HTTP and of how a language is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidInput
from engine.message_reading import require_object, require_string
from engine.request import Grammar
from engine.tools import Tool, ToolChoice

ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The calls that an answer may make (none where `tool_choice` is None) and its text's language
    (any where `grammar` is None)."""

    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    grammar: Grammar | None = None

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that the model is shown."""
        return self.tools if self.tool_choice else ()

    def thinking(self, asked: bool | None) -> bool | None:
        """The switch of thoughts. An answer that follows a grammar has none, unless asked for."""
        return False if asked is None and self.grammar is not None else asked


def read_response_format(
    value: Mapping[str, Any] | None, place: str = "response_format"
) -> Grammar | None:
    """Return the language that a format asks for; None for plain text.

    A schema stands in the format itself (OpenAI's responses, Anthropic's messages) or in its
    `json_schema` (chat completions); its other fields change nothing, since a schema always holds.
    Raises `InvalidInput`.
    """
    match value:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return Grammar("json_schema", json.dumps(ANY_OBJECT))
        case {"type": "json_schema"}:
            within = require_object(value.get("json_schema", value), f"{place}.json_schema")
            schema = require_object(within.get("schema") or {}, f"{place}.schema")
            return Grammar("json_schema", json.dumps(schema))
        case {"type": "grammar"} if (syntax := value.get("syntax", "lark")) in _SYNTAXES:
            definition = require_string(value.get("definition", ""), f"{place}.definition")
            return Grammar(syntax, definition)
    raise InvalidInput(
        f"{place} must be of type text, json_object, json_schema, or grammar"
        " with the syntax lark, regex or gbnf"
    )


_SYNTAXES = ("lark", "regex", "gbnf")
