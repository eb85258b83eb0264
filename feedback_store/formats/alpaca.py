"""Alpaca records and the seed tasks of self-instruct: an instruction, its input, an output."""

from __future__ import annotations

from collections.abc import Iterator

from engine.errors import InvalidInput
from engine.messages import Message, is_blank
from engine.storage import digest_json
from feedback_store.formats.fields import (
    RawRow,
    as_list,
    as_mapping,
    items,
    optional_text,
    required_text,
    verdict,
)
from feedback_store.formats.turns import (
    Options,
    answer_of,
    demonstration_turns,
    judged_turn,
    pair_turn,
    system_of,
)
from feedback_store.records import ImportedTurn


def alpaca_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """The instruction is followed by its input on a new line; answers in `history` count too.

    So reads LLaMA-Factory, whose variants these are (data/README.md): with `system` and `history`,
    and the two below.
    """
    answer = Message("assistant", required_text(row, "output"))
    yield from demonstration_turns((*_prompt(row), answer), options.user)


def alpaca_preference_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """`chosen` over `rejected`, both texts."""
    better, worse = (answer_of(required_text(row, name)) for name in ("chosen", "rejected"))
    yield pair_turn(_prompt(row), better, worse, options.user)


def alpaca_judged_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """`output` is good or bad, as `kto_tag` or `label` says."""
    answer = answer_of(required_text(row, "output"))
    yield judged_turn(_prompt(row), answer, verdict(row), options.user)


def seed_task_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """One turn for each instance; those of one task are one conversation."""
    instances = [as_mapping(item, "instances") for item in items(row, "instances")]
    if not instances:
        raise InvalidInput("'instances' is empty")
    pairs = [
        (_question(row, instance), required_text(instance, "output")) for instance in instances
    ]
    key = digest_json([[question.content, output] for question, output in pairs])
    conversation = key if len(pairs) > 1 else ""
    for question, output in pairs:
        yield judged_turn((question,), answer_of(output), True, options.user, conversation)


def _prompt(row: RawRow) -> tuple[Message, ...]:
    history = _history(row) if row.get("history") is not None else ()
    return (*system_of(row), *history, _question(row, row))


def _question(task: RawRow, instance: RawRow) -> Message:
    instruction, given = required_text(task, "instruction"), optional_text(instance, "input")
    return Message("user", instruction if is_blank(given) else f"{instruction}\n{given}")


def _history(row: RawRow) -> tuple[Message, ...]:
    messages = []
    for item in items(row, "history"):
        exchange = as_list(item, "history")
        if len(exchange) != 2:
            raise InvalidInput("'history' must hold [question, answer] pairs")
        said = {"question": exchange[0], "answer": exchange[1]}
        messages.append(Message("user", required_text(said, "question")))
        messages.append(Message("assistant", required_text(said, "answer")))
    return tuple(messages)
