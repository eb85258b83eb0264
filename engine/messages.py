"""Messages of a chat, with the calls of functions and their results.

Knows roles and text; knows nothing of templates or tokens.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from engine.errors import InvalidInput, InvalidText
from engine.tools import Tool, ToolCall, spaced_json, with_strings_changed

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}  # Unicode categories
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that are drawn as nothing


@dataclass(frozen=True, slots=True)
class Message:
    """The words of one role.

    A system message may offer `tools`, as in the published formats of GLM-4; an assistant's may
    hold `calls`; a tool's is the result of the call `call_id`. So a prompt, wherever it is stored
    or trained on, has all that the model was shown.
    """

    role: Role
    content: str
    tools: tuple[Tool, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """`{"role": ..., "content": ...}`, the shape TRL and chat templates use.

        Calls and their results are as in OpenAI's API; tools (`Tool.as_row`) stand beside the
        system's content.
        """
        row: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tools:
            row["tools"] = [tool.as_row() for tool in self.tools]
        if self.calls:
            row["tool_calls"] = [call.as_dict() for call in self.calls]
        if self.call_id:
            row["tool_call_id"] = self.call_id
        return row

    @property
    def uses_tools(self) -> bool:
        """Return whether it offers tools, calls them, or is a result."""
        return bool(self.tools or self.calls or self.role == "tool")

    @property
    def transcript(self) -> str:
        """All of it as text for a reader: the content, then a line for each tool or call."""
        calls = (f"{call.name}({call.arguments})" for call in self.calls)
        tools = (spaced_json(tool.as_dict()["function"]) for tool in self.tools)
        return "\n".join(filter(None, [self.content, *tools, *calls]))

    def changed(self, change: Callable[[str], str]) -> Message:
        """The message with `change` applied to its words, in tools and calls too."""

        def in_json(text: str) -> str:
            return spaced_json(with_strings_changed(json.loads(text), change))

        return replace(
            self,
            content=change(self.content),
            tools=tuple(
                Tool(each.name, change(each.description), in_json(each.parameters))
                for each in self.tools
            ),
            calls=tuple(replace(each, arguments=in_json(each.arguments)) for each in self.calls),
        )


def messages_from_dicts(items: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Inverse of `Message.as_dict`; raises `InvalidText` on an unknown role."""
    messages = []
    for item in items:
        if item["role"] not in ROLES:
            raise InvalidText(f"unknown role {item['role']!r}; known roles: {', '.join(ROLES)}")
        if not isinstance(item["content"], str):
            raise InvalidText("a message's content must be text")
        messages.append(
            Message(
                cast(Role, item["role"]),
                clean_text(item["content"]),
                tuple(map(Tool.from_row, item.get("tools", ()))),
                tuple(map(ToolCall.from_dict, item.get("tool_calls", ()))),
                item.get("tool_call_id", ""),
            )
        )
    return tuple(messages)


def tools_of(messages: Iterable[Message]) -> tuple[Tool, ...]:
    """The tools that a conversation offers."""
    return tuple(tool for message in messages for tool in message.tools)


def split_prefill(messages: Sequence[Message]) -> tuple[tuple[Message, ...], str]:
    """The messages to answer, and the given beginning of the answer (a last assistant message)."""
    if messages and messages[-1].role == "assistant":
        return tuple(messages[:-1]), messages[-1].content
    return tuple(messages), ""


def question_index(messages: Sequence[Message]) -> int | None:
    """Index of the user's message that awaits an answer; None if there is none.

    Behind it may stand system messages, and calls with their results.
    """
    for index in reversed(range(len(messages))):
        message = messages[index]
        if message.role not in ("system", "tool") and not message.calls:
            return index if message.role == "user" else None
    return None


def question_of(messages: Sequence[Message]) -> str:
    """The text of the last question; raises `InvalidInput` if the messages end without one."""
    index = question_index(messages)
    if index is None:
        raise InvalidInput("the conversation must end with a user message that awaits an answer")
    return messages[index].content


def storable_text(text: str) -> str:
    """The text with replacement characters for what `clean_text` refuses, of any length."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def clean_text(text: str, *, what: str = "message", limit_chars: int = 400_000) -> str:
    """Return the text if it can be stored and tokenized; raises `InvalidText` with the reason.

    Refused are lone surrogates (no UTF-8 form), NUL (PostgreSQL cannot store it, and it ends a
    string in C tokenizers), and more than `limit_chars` characters. Everything else, from
    right-to-left marks to emoji sequences, is unchanged.
    """
    if len(text) > limit_chars:
        raise InvalidText(f"the {what} has {len(text)} characters; the limit is {limit_chars}")
    if "\x00" in text:
        raise InvalidText(f"the {what} contains a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidText(f"the {what} contains a lone surrogate, which is not text") from None
    return text


def is_blank(text: str) -> bool:
    """Return whether all characters are invisible: white space, control and format ones."""
    return all(c in FILLERS or unicodedata.category(c) in INVISIBLE for c in text)


def require_text(text: str, *, what: str = "message", limit_chars: int = 400_000) -> str:
    """`clean_text` that also refuses a blank text."""
    if is_blank(clean_text(text, what=what, limit_chars=limit_chars)):
        raise InvalidText(f"the {what} is empty")
    return text
