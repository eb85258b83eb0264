"""TRL's dataset formats, conversational or plain text.

Preference, unpaired preference, prompt-completion and language modelling as TRL's documentation
("Dataset formats and types") names them. What our own exports write beside them is read back:
thoughts, whether a side was cut off, the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.errors import InvalidInput
from engine.messages import Message
from feedback_store.formats.fields import RawRow, optional_text, value, verdict
from feedback_store.formats.turns import (
    Options,
    judged_turn,
    one_answer,
    pair_turn,
    read_messages,
    side_of,
)
from feedback_store.records import ImportedAnswer, ImportedTurn

Messages = tuple[Message, ...]


def preference_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """`chosen` over `rejected`; without a prompt of their own kind they begin with it."""
    if _prompt_is_implicit(row):
        prompt, better, worse = _split(
            read_messages(value(row, "chosen"), "chosen"),
            read_messages(value(row, "rejected"), "rejected"),
        )
        sides = side_of(row, "chosen", better), side_of(row, "rejected", worse)
    else:
        prompt, sides = _prompt(row), (_side(row, "chosen"), _side(row, "rejected"))
    yield pair_turn(prompt, *sides, options.user, optional_text(row, "conversation_id"))


def unpaired_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """`completion` is good or bad, as `label` or `kto_tag` says."""
    answer, label = _side(row, "completion"), verdict(row)
    yield judged_turn(
        _prompt(row), answer, label, options.user, optional_text(row, "conversation_id")
    )


def completion_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """`completion` is worth imitating."""
    answer = _side(row, "completion")
    yield judged_turn(
        _prompt(row), answer, True, options.user, optional_text(row, "conversation_id")
    )


def _prompt_is_implicit(row: RawRow) -> bool:
    """Return whether no prompt is named, as TRL's `maybe_extract_prompt` decides: a text beside
    conversations is no prompt."""
    chosen, prompt = value(row, "chosen"), row.get("prompt")
    return isinstance(chosen, list) and not isinstance(prompt, list) and len(chosen) != 1


def _split(chosen: Messages, rejected: Messages) -> tuple[Messages, str, str]:
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise InvalidInput("'chosen' and 'rejected' do not begin with the same prompt")
    return (
        chosen[:shared],
        one_answer(chosen[shared:], "chosen"),
        one_answer(rejected[shared:], "rejected"),
    )


def _prompt(row: RawRow) -> Messages:
    found = value(row, "prompt")
    if isinstance(found, str):
        return (Message("user", optional_text(row, "prompt")),)
    return read_messages(found, "prompt")


def _side(row: RawRow, name: str) -> ImportedAnswer:
    found = value(row, name)
    if isinstance(found, str):
        return side_of(row, name, found)
    return side_of(row, name, one_answer(read_messages(found, name), name))
