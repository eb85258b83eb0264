"""Which import formats there are, and which of them a record has.

A format is told by what stands in the record, never by the file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from engine.errors import InvalidInput
from feedback_store.formats.alpaca import alpaca_turns, seed_task_turns
from feedback_store.formats.csv_files import csv_turns
from feedback_store.formats.fields import Row
from feedback_store.formats.gsm8k import is_solution, solution_turns
from feedback_store.formats.oasst import tree_turns
from feedback_store.formats.openwebui import rating_turns
from feedback_store.formats.sharegpt import sharegpt_preference_turns, sharegpt_turns
from feedback_store.formats.transcripts import transcript_turns
from feedback_store.formats.trl import (
    completion_turns,
    messages_turns,
    messages_unpaired_turns,
    preference_turns,
    unpaired_turns,
)
from feedback_store.formats.turns import Options
from feedback_store.records import ImportedTurn

KEYS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Format:
    """How records of one kind are told from others and read.

    A record has the format if it has all `keys` and none of `without`, and `fits`.
    """

    keys: frozenset[str]
    turns: Callable[[Row, Options], Iterator[ImportedTurn]]
    without: frozenset[str] = frozenset()
    fits: Callable[[Row], bool] = lambda row: True

    def matches(self, row: Row) -> bool:
        """Whether a record has this format."""
        return self.keys <= row.keys() and not self.without & row.keys() and self.fits(row)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _two_texts(row: Row) -> bool:
    return isinstance(row["chosen"], str) and isinstance(row["rejected"], str)


def _prompt_or_conversations(row: Row) -> bool:
    return isinstance(row.get("prompt"), str | list) or isinstance(row["chosen"], list)


IMPORT_FORMATS: Mapping[str, Format] = {
    "alpaca": Format(
        _words("instruction output"), alpaca_turns, _words("kto_tag label chosen rejected")
    ),
    "csv": Format(_words("question context"), csv_turns),
    "gsm8k-solutions": Format(
        _words("question"), solution_turns, fits=lambda row: any(map(is_solution, row.values()))
    ),
    "hh": Format(
        _words("chosen rejected"), transcript_turns,
        _words("prompt instruction question conversations"), _two_texts,
    ),
    "messages": Format(_words("messages"), messages_turns, _words("label kto_tag")),
    "messages-unpaired": Format(_words("messages label"), messages_unpaired_turns),
    "oasst": Format(_words("message_tree_id prompt"), tree_turns),
    "open-webui": Format(_words("type user_id data meta"), rating_turns),
    "seed-tasks": Format(_words("instruction instances"), seed_task_turns),
    "sharegpt": Format(
        _words("conversations"), sharegpt_turns, _words("chosen rejected label kto_tag")
    ),
    "sharegpt-preference": Format(
        _words("conversations chosen rejected"), sharegpt_preference_turns
    ),
    "trl-completion": Format(
        _words("prompt completion"), completion_turns, _words("label kto_tag")
    ),
    "trl-preference": Format(
        _words("chosen rejected"), preference_turns,
        _words("instruction question conversations"), _prompt_or_conversations,
    ),
    "trl-unpaired": Format(_words("prompt completion label"), unpaired_turns),
}  # fmt: skip


def format_named(name: str) -> Format:
    """The format of that name; raises `InvalidInput` with the known ones."""
    if name not in IMPORT_FORMATS:
        known = ", ".join(IMPORT_FORMATS)
        raise InvalidInput(f"unknown format {name[:40]!r}; known formats: {known}")
    return IMPORT_FORMATS[name]


def names_that_match(row: Row) -> list[str]:
    """The formats that a record has."""
    return [name for name, known in IMPORT_FORMATS.items() if known.matches(row)]


def keys_of(row: Row) -> str:
    """The record's keys for a message: not all where there are many, and no long ones."""
    shown = ", ".join(repr(key[:40]) for key in list(row)[:KEYS_SHOWN])
    more = len(row) - KEYS_SHOWN
    return (shown or "none") + (f" and {more} more" if more > 0 else "")
