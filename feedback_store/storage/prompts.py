"""The prompt that a model was shown for a turn, rebuilt from what is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.messages import Message, messages_from_dicts
from engine.prompts.modes import PromptTemplate


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, one answer to it, and the answer that the question follows."""

    question: str
    answer: str
    parent_answer_id: str | None


ReadExchange = Callable[[str], Exchange]  # by the answer's id


def read_history(answer_id: str | None, read: ReadExchange) -> list[Message]:
    """Questions and answers from the conversation's beginning up to and with an answer."""
    messages: list[Message] = []
    while answer_id is not None:
        exchange = read(answer_id)
        messages += [Message("assistant", exchange.answer), Message("user", exchange.question)]
        answer_id = exchange.parent_answer_id
    return messages[::-1]


def stored_with_tools(stored: Sequence[Mapping[str, Any]] | None) -> bool:
    """Return whether stored messages, if there are any, offer tools, call them, or are results."""
    return any(message.uses_tools for message in messages_from_dicts(stored or ()))


def rebuild_prompt(
    stored: Sequence[Mapping[str, Any]] | None,
    template: PromptTemplate,
    question: str,
    parent_answer_id: str | None,
    read: ReadExchange,
) -> tuple[Message, ...]:
    """The messages of a turn's prompt, without the person's own examples.

    `stored` are the messages where they are not the template over the chain of parents.
    """
    if stored is not None:
        return messages_from_dicts(stored)
    return template.build(read_history(parent_answer_id, read), question)
