"""The grammar of an answer that may or must call functions, in llguidance's Lark.

    start: thought? (WORDS | introduced calls)      "auto"
    start: thought? calls                           "required"

`introduced` are words up to the trigger of the format. Arguments follow the function's schema,
written as chat templates write JSON, or one by one as keywords. Knows formats and schemas; of
tokens it knows the ids of those that stand in markup and that no regular expression can match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import InvalidInput
from engine.prompts.calls.formats import CallFormat
from engine.prompts.calls.keywords import KeywordCallFormat, place_of_argument
from engine.prompts.reasoning import CLOSE, OPEN
from engine.tools import FUNCTION_NAME, Tool, ToolChoice

# JSON as `engine.tools.spaced_json` writes it
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
COMBINING = ("allOf", "anyOf", "oneOf", "$ref", "patternProperties", "unevaluatedProperties")
MAX_CALLS = 16  # in one answer; a small model may otherwise go on calling until its last token
DEFINITIONS = ("$defs", "definitions")
NOTES = ("$schema", "title", "description", "default", "examples")  # which allow and forbid nothing
KEYWORD_SCHEMA = {"type", "properties", "required", "additionalProperties", *DEFINITIONS, *NOTES}
BLANKS = "{0,4}"  # of characters; a small model may otherwise write blanks until its last token
ControlTokens = Mapping[str, int]


def call_grammar(
    form: CallFormat,
    tools: Sequence[Tool],
    choice: ToolChoice,
    control: ControlTokens,
    *,
    opening: str = "",
    may_think: bool = False,
) -> str:
    """Return the grammar of an answer.

    `control` has the ids of control tokens by their text. `opening` is the think block that the
    prompt has opened; without one, an answer may open one itself if it `may_think`. Raises
    `InvalidInput` for a schema that the format cannot keep.
    """
    offered = [tool for tool in tools if choice.name in (None, tool.name)]
    calls = _calls(form, control, parallel=choice.parallel and form.parallel)
    words = f"WORDS | introduced {calls}" if form.trigger else f"WORDS | {calls}"
    thought = ("thought " if opening else "thought? ") if opening or may_think else ""
    blank = "BLANK? " if thought and form.trigger else ""
    forced = f"{blank}{_literal(form.trigger, control)} {calls}"
    rules = {
        "start": f"{thought}answer",
        "answer": words if choice.mode == "auto" else forced,
        "call": " | ".join(f"call_{number}" for number in range(len(offered))),
        **{f"call_{number}": _call(form, tool, control) for number, tool in enumerate(offered)},
        **_words(form, control, may_think=bool(thought)),
        **(_thought(control, is_open=bool(opening)) if thought else {}),
    }
    return "".join(f"{name}: {body}\n" for name, body in rules.items())


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The schema that a tool's arguments are held to.

    It is the tool's own, without properties that it does not name unless it allows them itself: a
    small model would make some up.
    """
    schema: dict[str, Any] = json.loads(tool.parameters)
    names_all = "properties" in schema and not schema.keys() & set(COMBINING)
    closed = {"additionalProperties": False} if names_all else {}
    return {"type": "object", **closed, **schema}


def _calls(form: CallFormat, control: ControlTokens, *, parallel: bool) -> str:
    """The grammar after the trigger: one call, or several where that is allowed."""
    optional = f"{_literal(form.optional, control)}?" if form.optional in control else ""
    more = f"({_literal(form.between, control)} call){{0,{MAX_CALLS - 1}}}" if parallel else ""
    opening, closing = _literal(form.opening, control), _literal(form.closing, control)
    return f"{optional} {opening} call {more} {closing}"


def _call(form: CallFormat, tool: Tool, control: ControlTokens) -> str:
    if form.trigger:
        begin = _literal(f"{form.before}{tool.name}{form.after}", control)
    else:  # in one lexeme, so that blanks before it are not taken for words
        begin = rf"/\s{BLANKS}{_escaped(form.before)}{_escaped(tool.name)}{_after(form)}/"
    schema = arguments_schema(tool)
    if isinstance(form, KeywordCallFormat):
        arguments = _keywords(schema, tool.name)
    else:
        arguments = _json(schema)
    return f"{begin} {arguments} {_literal(form.behind, control)}"


def _after(form: CallFormat) -> str:
    """The part of a regular expression that follows a name."""
    after = _escaped(form.after)
    # The vocabulary's word for the beginning of a text has a blank in it
    return after.replace(r"\n", r"\n ?", 1) if isinstance(form, KeywordCallFormat) else after


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': SPACING})}"


def _keywords(schema: Mapping[str, Any], tool: str) -> str:
    """Keyword arguments in the order of the schema's properties, each required or not.

    Raises `InvalidInput` for a schema of which that is not all.
    """
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = schema.get("required", [])
    unknown = sorted({*schema} - KEYWORD_SCHEMA | {*required} - {*properties})
    if unknown:
        raise InvalidInput(
            f"the parameters of the tool {tool} are refused: this model writes arguments by their"
            f" names, which leaves no place for {', '.join(unknown)}"
        )
    within = {name: schema[name] for name in DEFINITIONS if name in schema}
    written = [
        (_keyword(name, each, within), name in required) for name, each in properties.items()
    ]
    # An argument may be the first where all before it may be left out
    firsts = []
    for at, (argument, is_required) in enumerate(written):
        later = (f'(", " {each})' + "?" * (not needed) for each, needed in written[at + 1 :])
        firsts.append(" ".join([argument, *later]))
        if is_required:
            return f"({' | '.join(firsts)})"
    return f"({' | '.join(firsts)})?" if firsts else ""


def _keyword(name: str, schema: object, within: Mapping[str, Any]) -> str:
    head, tail = map(json.dumps, place_of_argument(name))
    if isinstance(schema, Mapping) and schema.get("type") == "boolean" and "enum" not in schema:
        value = '("True" | "False")'
    else:
        value = _json({**(schema if isinstance(schema, Mapping) else {}), **within})
    return f"({head} {value} {tail})" if tail != '""' else f"({head} {value})"


def _words(form: CallFormat, control: ControlTokens, *, may_think: bool) -> dict[str, str]:
    """Text that holds no trigger and begins neither as a call nor as a thought."""
    if form.trigger:
        forbidden = [rf"/(?s:.*){_escaped(form.trigger)}(?s:.*)/"]
    else:
        head = rf"{_escaped(form.before)}{FUNCTION_NAME}{_after(form)}"
        forbidden = [rf"/\s*{head}{_escaped(form.opens_arguments)}(?s:.*)/"]
    if may_think:
        forbidden.append(rf"/\s*{_escaped(OPEN)}(?s:.*)/")
    words = " & ".join(["/(?s:.*)/", *(f"~{each}" for each in forbidden)])
    trigger = _literal(form.trigger, control)
    introduced = {"introduced[lazy]": f"WORDS {trigger}"} if form.trigger else {}
    if form.trigger in control:
        introduced = {"introduced": f"WORDS? {trigger}"}
    return {"WORDS": words, "BLANK": rf"/\s{BLANKS}/", **introduced}


def _thought(control: ControlTokens, *, is_open: bool) -> dict[str, str]:
    begin = "" if is_open else _literal(OPEN, control)
    if CLOSE in control:
        return {"thought": f"{begin} /(?s:.*)/ {_literal(CLOSE, control)}"}
    return {"thought": f"{begin} inside", "inside[lazy]": rf"/(?s:.*){_escaped(CLOSE)}/"}


def _literal(text: str, control: ControlTokens) -> str:
    """A text as Lark's string literals, with its control tokens by their ids."""
    among = "|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)"
    parts = re.split(f"({among})", text)
    written = (f"<[{control[p]}]>" if p in control else json.dumps(p) for p in parts if p)
    return " ".join(written)


def _escaped(text: str) -> str:
    """A text as a part of a regular expression between slashes."""
    return re.escape(text).replace("/", r"\/").replace("\n", "n").replace("\\ ", " ")
