"""Transcripts as in Anthropic's HH data: "Human:" and "Assistant:" paragraphs in one text.

Two transcripts, `chosen` and `rejected`, differ in their last answer (Bai et al. 2022,
https://github.com/anthropics/hh-rlhf).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.errors import InvalidInput
from engine.messages import Message, Role
from feedback_store.formats.fields import RawRow, required_text
from feedback_store.formats.turns import Options, one_answer, pair_turn, side_of
from feedback_store.records import ImportedTurn

SPEAKER = re.compile(r"\n\n(Human|Assistant):[ ]?")
SPEAKER_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def transcript_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """One turn whose prompt is the common beginning of both transcripts."""
    chosen, rejected = _messages(row, "chosen"), _messages(row, "rejected")
    shared = min(len(chosen), len(rejected)) - 1
    if chosen[:shared] != rejected[:shared]:
        raise InvalidInput("'chosen' and 'rejected' differ before their last answer")
    better = side_of(row, "chosen", one_answer(chosen[shared:], "chosen"))
    worse = side_of(row, "rejected", one_answer(rejected[shared:], "rejected"))
    yield pair_turn(chosen[:shared], better, worse, options.user)


def _messages(row: RawRow, key: str) -> tuple[Message, ...]:
    before, *parts = SPEAKER.split(required_text(row, key))
    if before or not parts:
        raise InvalidInput(f"{key!r} must begin with an empty line and 'Human:'")
    return tuple(
        Message(SPEAKER_ROLES[speaker], said)
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    )
