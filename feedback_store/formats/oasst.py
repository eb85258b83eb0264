"""OpenAssistant's message trees: questions, answers, thumbs and ranks.

A tree is `{"message_tree_id", "prompt": message}`, and a message holds its `replies`. `emojis`
counts "+1", "-1" and "red_flag"; `rank` orders the answers to one question, 0 the best (Köpf et
al. 2023, https://github.com/LAION-AI/Open-Assistant, "data/schemas").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

from engine.errors import InvalidInput
from engine.messages import Message, Role
from feedback_store.formats.fields import (
    RawRow,
    as_mapping,
    count,
    items,
    mapping,
    optional_text,
    required_text,
)
from feedback_store.formats.turns import Options, Ranks, answer_of, asked
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn, ImportedVote

RANKER = "oasst-ranking"
OASST_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}
MAX_VOTES = 10_000  # of one kind on one message: each becomes a statement of its own
HIGHEST_RANK = 1_000


@dataclass(frozen=True, slots=True)
class TreeMessage:
    """A message with all that led to it, itself included. `flagged`: something there was."""

    row: RawRow
    path: tuple[Message, ...]
    flagged: bool
    replies: tuple[RawRow, ...]


def tree_messages(tree: RawRow) -> Iterator[TreeMessage]:
    """The messages of a tree, without deleted ones and those that follow them."""
    waiting: list[tuple[RawRow, tuple[Message, ...], bool]] = [(mapping(tree, "prompt"), (), False)]
    waiting = [item for item in waiting if not _deleted(item[0])]
    while waiting:
        row, before, flagged_before = waiting.pop()
        path = (*before, _message(row))
        flagged = flagged_before or _emoji(row, "red_flag") > 0
        replies = tuple(
            reply
            for item in (items(row, "replies") if "replies" in row else ())
            if not _deleted(reply := as_mapping(item, "replies"))
        )
        yield TreeMessage(row, path, flagged, replies)
        waiting += [(reply, path, flagged) for reply in reversed(replies)]


def tree_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """One turn for each question that was answered; its prompt is the path from the root."""
    key = required_text(row, "message_tree_id")
    for message in tree_messages(row):
        replies = [reply for reply in message.replies if reply.get("role") == "assistant"]
        if message.path[-1].role == "user" and replies:
            yield ImportedTurn(
                prompt=asked(message.path),
                answers=tuple(_answer(reply) for reply in replies),
                choices=tuple(_choices(replies, options.ranks)),
                conversation=key,
                flagged=message.flagged,
            )


def _message(row: RawRow) -> Message:
    role = row.get("role")
    if not isinstance(role, str) or role not in OASST_ROLES:
        known = ", ".join(OASST_ROLES)
        raise InvalidInput(f"unknown role {str(role)[:40]!r}; known roles: {known}")
    return Message(OASST_ROLES[role], required_text(row, "text"))


def _answer(row: RawRow) -> ImportedAnswer:
    return replace(
        answer_of(required_text(row, "text")),
        model=optional_text(row, "model_name"),
        votes=(*_votes(row, "+1"), *_votes(row, "-1")),
        flagged=_emoji(row, "red_flag") > 0,
    )


def _votes(row: RawRow, emoji: str) -> Iterator[ImportedVote]:
    """One vote for each time the emoji was given, each by a person of its own.

    Who they were is not in the data. That two of them on different messages are one person must
    not be claimed, so the message is part of the name.
    """
    given = _emoji(row, emoji)
    who = (
        f"oasst-{required_text(row, 'message_id')}-{'up' if emoji == '+1' else 'down'}"
        if given
        else ""
    )
    for number in range(1, given + 1):
        yield ImportedVote(f"{who}-{number}", 1 if emoji == "+1" else -1)


def _choices(replies: Sequence[RawRow], ranks: Ranks) -> Iterator[ImportedChoice]:
    """The better-ranked of two answers stands on the left. Without all ranks there is no order."""
    if len(replies) < 2 or any(reply.get("rank") is None for reply in replies):
        return
    ranked = sorted(
        (count(reply, "rank", HIGHEST_RANK), place) for place, reply in enumerate(replies)
    )
    for (high, left), (low, right) in (
        pairwise(ranked) if ranks == "adjacent" else combinations(ranked, 2)
    ):
        yield ImportedChoice(RANKER, left, right, "left" if high < low else "tie")


def _emoji(row: RawRow, name: str) -> int:
    return count(as_mapping(row.get("emojis") or {}, "emojis"), name, MAX_VOTES)


def _deleted(row: RawRow) -> bool:
    return row.get("deleted") is True
