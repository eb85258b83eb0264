"""Messages of a chat. Knows roles and text; knows nothing of templates or tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from engine.errors import InvalidInput, InvalidText

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)
INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}  # Unicode categories
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that are drawn as nothing


@dataclass(frozen=True, slots=True)
class Message:
    """The words of one role."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """`{"role": ..., "content": ...}`, the shape TRL and chat templates use."""
        return {"role": self.role, "content": self.content}


def messages_from_dicts(items: Iterable[Mapping[str, str]]) -> tuple[Message, ...]:
    """Inverse of `Message.as_dict`; raises `InvalidText` on an unknown role."""
    messages = []
    for item in items:
        if item["role"] not in ROLES:
            raise InvalidText(f"unknown role {item['role']!r}; known roles: {', '.join(ROLES)}")
        if not isinstance(item["content"], str):
            raise InvalidText("a message's content must be text")
        messages.append(Message(cast(Role, item["role"]), clean_text(item["content"])))
    return tuple(messages)


def split_prefill(messages: Sequence[Message]) -> tuple[tuple[Message, ...], str]:
    """The messages to answer, and the given beginning of the answer (a last assistant message)."""
    if messages and messages[-1].role == "assistant":
        return tuple(messages[:-1]), messages[-1].content
    return tuple(messages), ""


def question_index(messages: Sequence[Message]) -> int | None:
    """Index of the last message that is not a system message; None unless it is a user's."""
    for index in reversed(range(len(messages))):
        if messages[index].role != "system":
            return index if messages[index].role == "user" else None
    return None


def question_of(messages: Sequence[Message]) -> str:
    """The text of the last question; raises `InvalidInput` if the messages end without one."""
    index = question_index(messages)
    if index is None:
        raise InvalidInput("the conversation must end with a user message that awaits an answer")
    return messages[index].content


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
    """Whether the text has only invisible characters: white space, control and format ones."""
    return all(c in FILLERS or unicodedata.category(c) in INVISIBLE for c in text)


def require_text(text: str, *, what: str = "message", limit_chars: int = 400_000) -> str:
    """`clean_text` that also refuses a blank text."""
    if is_blank(clean_text(text, what=what, limit_chars=limit_chars)):
        raise InvalidText(f"the {what} is empty")
    return text
