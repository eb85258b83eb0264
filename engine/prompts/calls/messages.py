"""Messages with tools, as a chat template reads them or as plain text. Knows no templates.

Templates read OpenAI's names ("openai"), or those of ChatGLM3 and GLM-4 ("glm"), where tools stand
in a system message, a call is an assistant's message with the function's name as `metadata`, and a
result has the role `observation`. For templates that read neither, `as_plain` writes all of it as
text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from engine.messages import Message, is_blank
from engine.prompts.calls.formats import HERMES, CallFormat
from engine.tools import ToolCall, WrittenCall, spaced_json

TemplateRow = dict[str, Any]
INSTRUCTIONS = """\
You can call functions to answer. They are described here, each with a JSON Schema of its arguments:
<tools>
{tools}
</tools>
To call a function, answer with its name and its arguments as JSON, in this form:
{example}
You are then told its result between <tool_response> and </tool_response>."""
EXAMPLE = HERMES.write([WrittenCall("the name", '{"an argument": "its value"}')])


def without_tools(messages: Iterable[Message]) -> list[Message]:
    """The messages without the offer of tools; a system message of nothing else is left out."""
    return [
        replace(message, tools=())
        for message in messages
        if not (message.tools and is_blank(message.content))
    ]


def as_plain(messages: Iterable[Message]) -> list[Message]:
    """Write tools, calls and results as text, in the form of Hermes and with words of our own."""
    return [
        replace(message, content=_offer(message), tools=())
        if message.tools
        else Message("assistant", _with_calls(message))
        if message.calls
        else Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
        if message.role == "tool"
        else message
        for message in messages
    ]


def template_messages(
    messages: Sequence[Message], tools: Sequence[TemplateRow], form: CallFormat
) -> list[TemplateRow]:
    """Messages without an offer, as the template of a format reads them beside `tools`."""
    if form.dialect == "glm":
        offer = [{"role": "system", "content": "", "tools": list(tools)}] if tools else []
        return [*offer, *(row for message in messages for row in _glm_rows(message, form))]
    said = messages if form.parallel else one_call_each(messages)
    names = {call.id: call.name for message in messages for call in message.calls}
    ids = {each: f"call{n:05}" if form.short_ids else each for n, each in enumerate(names)}
    return [_openai_row(message, ids, names) for message in said]


def one_call_each(messages: Iterable[Message]) -> list[Message]:
    """Split calls that were made together: each becomes a message, with its result behind it."""
    split: list[Message] = []
    waiting: dict[str, Message] = {}  # by call: the further calls, until their results come
    for message in messages:
        if message.role == "tool" and message.call_id in waiting:
            split.append(waiting.pop(message.call_id))
        elif message.role != "tool":
            split += waiting.values()
            waiting = {}
        first, *others = message.calls or (None,)
        if first is not None:
            waiting = {call.id: Message("assistant", "", calls=(call,)) for call in others if call}
            message = replace(message, calls=(first,))
        split.append(message)
    return [*split, *waiting.values()]


def _offer(message: Message) -> str:
    tools = "\n".join(spaced_json(tool.as_dict()["function"]) for tool in message.tools)
    offer = INSTRUCTIONS.format(tools=tools, example=EXAMPLE)
    return offer if is_blank(message.content) else f"{message.content}\n\n{offer}"


def _with_calls(message: Message) -> str:
    calls = HERMES.write(WrittenCall(call.name, _spaced(call)) for call in message.calls)
    return calls if is_blank(message.content) else f"{message.content}\n{calls}"


def _openai_row(message: Message, ids: dict[str, str], names: dict[str, str]) -> TemplateRow:
    row: TemplateRow = {"role": message.role, "content": message.content}
    if message.calls:
        row["tool_calls"] = [
            {
                "id": ids[call.id],
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        known = message.call_id
        row |= {"tool_call_id": ids.get(known, known), "name": names.get(known, "")}
    return row


def _glm_rows(message: Message, form: CallFormat) -> list[TemplateRow]:
    if message.role == "tool":
        return [{"role": "observation", "metadata": "", "content": message.content}]
    row: TemplateRow = {"role": message.role, "metadata": "", "content": message.content}
    calls = [_glm_call(call, form) for call in message.calls]
    return [row, *calls] if message.content or not calls else calls


def _glm_call(call: ToolCall, form: CallFormat) -> TemplateRow:
    """The row of a call, whose text has the function's name in its first line."""
    name, _, content = form.write([WrittenCall(call.name, _spaced(call))]).partition("\n")
    return {"role": "assistant", "metadata": name, "content": content}


def _spaced(call: ToolCall) -> str:
    """The arguments as models are shown them, whatever blanks the caller's JSON has."""
    return spaced_json(json.loads(call.arguments))
