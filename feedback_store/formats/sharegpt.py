"""ShareGPT conversations, and LLaMA-Factory's other records: preferences and lone judgements.

LLaMA-Factory's data/README.md lets a dataset choose its columns and tags, so the conversation is
`conversations` or `messages`, spelt as ShareGPT or as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.messages import Message
from feedback_store.formats.fields import RawRow, optional_text, value, verdict
from feedback_store.formats.turns import (
    Options,
    demonstration_turns,
    judged_turn,
    one_answer,
    pair_turn,
    read_message,
    read_messages,
    system_of,
    whole_side_of,
)
from feedback_store.records import ImportedAnswer, ImportedTurn


def conversation_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """Each assistant message is worth imitating.

    In our own exports, which `completion_complete` gives away, only the last one is: the others
    are history and examples.
    """
    if "completion_complete" in row:
        yield _judged_turn(row, True, options)
    else:
        yield from demonstration_turns(_messages(row), options.user)


def judged_conversation_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """The last assistant message is good or bad, as `kto_tag` or `label` says."""
    yield _judged_turn(row, verdict(row), options)


def conversation_preference_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """The conversation is the prompt, `chosen` and `rejected` one message each."""
    better, worse = _side(row, "chosen"), _side(row, "rejected")
    conversation = optional_text(row, "conversation_id")
    yield pair_turn(_messages(row), better, worse, options.user, conversation)


def _judged_turn(row: RawRow, good: bool, options: Options) -> ImportedTurn:
    messages = _messages(row)
    answer = whole_side_of(row, "completion", one_answer(messages[-1:], _column(row)))
    conversation = optional_text(row, "conversation_id")
    return judged_turn(messages[:-1], answer, good, options.user, conversation)


def _messages(row: RawRow) -> tuple[Message, ...]:
    key = _column(row)
    return (*system_of(row), *read_messages(value(row, key), key))


def _column(row: RawRow) -> str:
    return "conversations" if "conversations" in row else "messages"


def _side(row: RawRow, name: str) -> ImportedAnswer:
    message = read_message(value(row, name), name)
    return whole_side_of(row, name, one_answer((message,), name))
