"""ShareGPT conversations, and LLaMA-Factory's preference records in the same spelling."""

from __future__ import annotations

from collections.abc import Iterator

from feedback_store.formats.fields import Row, any_text, value
from feedback_store.formats.turns import (
    SHAREGPT,
    Options,
    demonstration_turns,
    judged_turn,
    message_of,
    messages_of,
    one_answer,
    pair_turn,
    system_of,
    whole_side_of,
)
from feedback_store.records import ImportedAnswer, ImportedTurn


def sharegpt_turns(row: Row, options: Options) -> Iterator[ImportedTurn]:
    """Each assistant message is worth imitating.

    In our own exports, which `completion_complete` gives away, only the last one is: the others
    are history and examples.
    """
    messages = (
        *system_of(row),
        *messages_of(value(row, "conversations"), SHAREGPT, "conversations"),
    )
    if "completion_complete" not in row:
        yield from demonstration_turns(messages, options.user)
        return
    answer = whole_side_of(row, "completion", one_answer(messages[-1:], "conversations"))
    conversation = any_text(row, "conversation_id")
    yield judged_turn(messages[:-1], answer, True, options.user, conversation)


def sharegpt_preference_turns(row: Row, options: Options) -> Iterator[ImportedTurn]:
    """`conversations` is the prompt, `chosen` and `rejected` one message each."""
    prompt = (*system_of(row), *messages_of(value(row, "conversations"), SHAREGPT, "conversations"))
    better, worse = _side(row, "chosen"), _side(row, "rejected")
    yield pair_turn(prompt, better, worse, options.user, any_text(row, "conversation_id"))


def _side(row: Row, name: str) -> ImportedAnswer:
    message = message_of(value(row, name), SHAREGPT, name)
    return whole_side_of(row, name, one_answer((message,), name))
