"""The import formats, and the recognition of a record's format.

A format is recognised by the record's keys, never by the file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from engine.errors import InvalidInput
from feedback_store.formats.alpaca import (
    alpaca_judged_turns,
    alpaca_preference_turns,
    alpaca_turns,
    seed_task_turns,
)
from feedback_store.formats.chatgpt import chatgpt_turns
from feedback_store.formats.csv_files import csv_turns
from feedback_store.formats.fields import HOLDS_MEDIA, OFFERS_TOOLS, RawRow, UnusableRecord
from feedback_store.formats.gsm8k import is_solution, solution_turns
from feedback_store.formats.oasst import tree_turns
from feedback_store.formats.openwebui import rating_turns
from feedback_store.formats.openwebui_chats import is_open_webui_chat, open_webui_turns
from feedback_store.formats.sharegpt import (
    conversation_preference_turns,
    conversation_turns,
    judged_conversation_turns,
)
from feedback_store.formats.transcripts import transcript_turns
from feedback_store.formats.trl import completion_turns, preference_turns, unpaired_turns
from feedback_store.formats.turns import Options
from feedback_store.records import ImportedTurn

KEYS_SHOWN = 12
MEDIA_KEYS = ("image", "images", "video", "videos", "audio", "audios")


@dataclass(frozen=True, slots=True)
class ImportFormat:
    """A format of records: how to recognise and to read them.

    A record has the format if it has all `keys` and none of `without`, and `fits`.
    """

    keys: frozenset[str]
    turns: Callable[[RawRow, Options], Iterator[ImportedTurn]]
    without: frozenset[str] = frozenset()
    fits: Callable[[RawRow], bool] = lambda row: True

    def matches(self, row: RawRow) -> bool:
        """Return whether a record has this format."""
        return self.keys <= row.keys() and not self.without & row.keys() and self.fits(row)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _two_texts(row: RawRow) -> bool:
    return isinstance(row["chosen"], str) and isinstance(row["rejected"], str)


def _prompt_or_conversations(row: RawRow) -> bool:
    return isinstance(row.get("prompt"), str | list) or isinstance(row["chosen"], list)


def _conversation_and_sides(row: RawRow) -> bool:
    conversation = "conversations" in row or "messages" in row
    return conversation and "prompt" not in row and not isinstance(row["chosen"], list)


def _judged(row: RawRow) -> bool:
    return "label" in row or "kto_tag" in row


VERDICTS = _words("label kto_tag")
IMPORT_FORMATS: Mapping[str, ImportFormat] = {
    "alpaca": ImportFormat(
        _words("instruction output"), alpaca_turns, VERDICTS | {"chosen", "rejected"}
    ),
    "alpaca-preference": ImportFormat(
        _words("instruction chosen rejected"), alpaca_preference_turns, _words("prompt")
    ),
    "alpaca-unpaired": ImportFormat(
        _words("instruction output"), alpaca_judged_turns, _words("chosen rejected"), _judged
    ),
    "chatgpt": ImportFormat(_words("mapping current_node"), chatgpt_turns),
    "csv": ImportFormat(_words("question context"), csv_turns),
    "gsm8k-solutions": ImportFormat(
        _words("question"), solution_turns, fits=lambda row: any(map(is_solution, row.values()))
    ),
    "hh": ImportFormat(
        _words("chosen rejected"),
        transcript_turns,
        _words("prompt instruction question conversations messages"),
        _two_texts,
    ),
    "messages": ImportFormat(
        _words("messages"), conversation_turns, VERDICTS | {"chosen", "rejected", "conversations"}
    ),
    "messages-unpaired": ImportFormat(
        _words("messages"), judged_conversation_turns, _words("conversations"), _judged
    ),
    "oasst": ImportFormat(_words("message_tree_id prompt"), tree_turns),
    "open-webui": ImportFormat(_words("type user_id data meta"), rating_turns),
    "open-webui-chats": ImportFormat(_words("chat"), open_webui_turns, fits=is_open_webui_chat),
    "seed-tasks": ImportFormat(_words("instruction instances"), seed_task_turns),
    "sharegpt": ImportFormat(
        _words("conversations"), conversation_turns, VERDICTS | {"chosen", "rejected"}
    ),
    "sharegpt-preference": ImportFormat(
        _words("chosen rejected"), conversation_preference_turns, fits=_conversation_and_sides
    ),
    "sharegpt-unpaired": ImportFormat(
        _words("conversations"), judged_conversation_turns, _words("chosen rejected"), _judged
    ),
    "trl-completion": ImportFormat(_words("prompt completion"), completion_turns, VERDICTS),
    "trl-preference": ImportFormat(
        _words("chosen rejected"),
        preference_turns,
        _words("instruction question conversations"),
        _prompt_or_conversations,
    ),
    "trl-unpaired": ImportFormat(_words("prompt completion"), unpaired_turns, fits=_judged),
}

# What a person may import into the own list: whole conversations, of which nobody says anything
CONVERSATION_FORMATS = {name: IMPORT_FORMATS[name] for name in ("chatgpt", "open-webui-chats")}


def read_turns(known: ImportFormat, row: RawRow, options: Options) -> list[ImportedTurn]:
    """The turns of one record.

    Raises `InvalidInput` where it cannot be read, and `UnusableRecord` where it can, but what it
    says rests on what the model does not have: pictures, videos, sounds or tools. LLaMA-Factory
    keeps these in columns beside the conversation, which has marks such as `<image>` for them.
    """
    if any(row.get(key) for key in MEDIA_KEYS):
        raise UnusableRecord(HOLDS_MEDIA)
    if row.get("tools") not in (None, "", [], "[]"):
        raise UnusableRecord(OFFERS_TOOLS)
    return list(known.turns(row, options))


def format_named(name: str) -> ImportFormat:
    """The format of that name; raises `InvalidInput` with the known ones."""
    if name not in IMPORT_FORMATS:
        known = ", ".join(IMPORT_FORMATS)
        raise InvalidInput(f"unknown format {name[:40]!r}; known formats: {known}")
    return IMPORT_FORMATS[name]


def names_that_match(row: RawRow) -> list[str]:
    """The formats that a record has."""
    return [name for name, known in IMPORT_FORMATS.items() if known.matches(row)]


def keys_of(row: RawRow) -> str:
    """The record's keys for a message: not all where there are many, and no long ones."""
    shown = ", ".join(repr(key[:40]) for key in list(row)[:KEYS_SHOWN])
    more = len(row) - KEYS_SHOWN
    return (shown or "none") + (f" and {more} more" if more > 0 else "")
