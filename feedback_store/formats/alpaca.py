"""Alpaca records and the seed tasks of self-instruct: an instruction, its input, an output."""

from __future__ import annotations

from collections.abc import Iterator

from engine.errors import InvalidInput
from engine.messages import Message, is_blank
from engine.storage import digest_json
from feedback_store.formats.fields import Row, any_text, as_list, as_mapping, items, text
from feedback_store.formats.turns import (
    Options,
    demonstration_turns,
    judged_turn,
    system_of,
)
from feedback_store.records import ImportedAnswer, ImportedTurn


def alpaca_turns(row: Row, options: Options) -> Iterator[ImportedTurn]:
    """The instruction is followed by its input on a new line; answers in `history` count too.

    So reads LLaMA-Factory, whose variant with `system` and `history` this is (data/README.md).
    """
    history = _history(row) if row.get("history") is not None else ()
    messages = (*system_of(row), *history, _question(row, row))
    answer = Message("assistant", text(row, "output"))
    yield from demonstration_turns((*messages, answer), options.user)


def seed_task_turns(row: Row, options: Options) -> Iterator[ImportedTurn]:
    """One turn for each instance; those of one task are one conversation."""
    instances = [as_mapping(item, "instances") for item in items(row, "instances")]
    if not instances:
        raise InvalidInput("'instances' is empty")
    pairs = [(_question(row, instance), text(instance, "output")) for instance in instances]
    key = digest_json([[question.content, output] for question, output in pairs])
    conversation = key if len(pairs) > 1 else ""
    for question, output in pairs:
        yield judged_turn((question,), ImportedAnswer(output), True, options.user, conversation)


def _question(task: Row, instance: Row) -> Message:
    instruction, given = text(task, "instruction"), any_text(instance, "input")
    return Message("user", instruction if is_blank(given) else f"{instruction}\n{given}")


def _history(row: Row) -> tuple[Message, ...]:
    messages = []
    for item in items(row, "history"):
        exchange = as_list(item, "history")
        if len(exchange) != 2:
            raise InvalidInput("'history' must hold [question, answer] pairs")
        said = {"question": exchange[0], "answer": exchange[1]}
        messages.append(Message("user", text(said, "question")))
        messages.append(Message("assistant", text(said, "answer")))
    return tuple(messages)
