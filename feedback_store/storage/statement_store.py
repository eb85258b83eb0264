"""Statements: writing votes, corrections, choices, flags and what people did with answers.

Each method is one transaction, durable when it returns; many at a time are committed together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import Connection, select

from engine.errors import InvalidInput, UnknownId
from engine.messages import clean_text, require_text
from engine.storage import digest_json
from feedback_store.records import (
    BAD_REASONS,
    CHOICES,
    GOOD_REASONS,
    ChoiceValue,
    Comparison,
    CurrentChoice,
    CurrentVote,
    VoteValue,
)
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.events import add_event, event_values
from feedback_store.storage.group_commit import GroupCommit
from feedback_store.storage.kept_changes import note_liked
from feedback_store.storage.statements import choice_of, read_own_statements, vote_of
from feedback_store.storage.turns import new_id, own_turn

Noted = Literal["regeneration", "copy", "flag"]
REASONS_OF: Mapping[int, tuple[str, ...]] = {1: GOOD_REASONS, -1: BAD_REASONS, 0: ()}
MAX_COMMENT_CHARS = 4_000
ID_CHARS = 32
# What stands in the column of each kind of statement that says: what I said before holds no more
TAKEN_BACK: Mapping[str, object] = {"vote": 0, "correction": "", "choice": "tie"}


@dataclass(frozen=True, slots=True)
class OwnStatements:
    """The current statements of a user on an answer: a thumb, other words, and a comparison."""

    vote: CurrentVote | None
    correction: str | None
    choices: tuple[CurrentChoice, ...]


class StatementStore:
    """Stores what people say of answers; of a user's statements about a thing the latest counts."""

    def __init__(self, database: Database, group: GroupCommit) -> None:
        self._database = database
        self._group = group

    def vote(
        self,
        answer_id: str,
        user_id: str,
        vote: VoteValue,
        *,
        reasons: Sequence[str] = (),
        comment: str = "",
        idempotency_key: str | None = None,
    ) -> None:
        """Store a thumb up (+1), down (-1) or cleared (0), and why; a user's last vote counts.

        Of an answer that was made from another one by a change, a thumb also says whether the
        change was an improvement: see `kept_changes`.
        """
        require_reasons(vote, reasons)
        clean_text(comment, what="comment", limit_chars=MAX_COMMENT_CHARS)
        self._add_event(
            "vote",
            answer_id,
            user_id,
            idempotency_key,
            vote=vote,
            reasons=sorted(set(reasons)) or None,
            comment=comment or None,
            then=partial(note_liked, liked=vote == 1),
        )

    def correct(
        self, answer_id: str, user_id: str, text: str, *, idempotency_key: str | None = None
    ) -> None:
        """Store the answer as the user would have had it."""
        require_text(text, what="correction")
        self._add_event("correction", answer_id, user_id, idempotency_key, correction=text)

    def note(
        self, answer_id: str, user_id: str, kind: Noted, *, idempotency_key: str | None = None
    ) -> None:
        """Store that a user copied an answer, regenerated it, or flagged it as not to be used."""
        self._add_event(kind, answer_id, user_id, idempotency_key)

    def compare(
        self, left_answer_id: str, right_answer_id: str, user_id: str, *, once: bool = False
    ) -> Comparison:
        """Store that two answers to one question of this user's are shown side by side.

        The question may be of two turns of a conversation that were shown the very same messages.
        With `once`, the same two have one comparison, however often they are compared.
        """
        with self._database.write() as connection:
            left = own_turn(connection, left_answer_id, user_id)
            right = own_turn(connection, right_answer_id, user_id)
            if left_answer_id == right_answer_id or not _are_one_question(connection, left, right):
                raise InvalidInput("a comparison is between two answers to the same question")
            known = [user_id, left_answer_id, right_answer_id]
            comparison = Comparison(
                digest_json(known)[-ID_CHARS:] if once else new_id(),
                left["id"],
                left_answer_id,
                right_answer_id,
                user_id,
                time.time(),
            )
            insert_once(connection, t.comparisons, asdict(comparison))
        return comparison

    def choose(
        self,
        comparison_id: str,
        user_id: str,
        choice: ChoiceValue,
        *,
        idempotency_key: str | None = None,
    ) -> None:
        """Store which of two answers is better; a user's last choice counts."""
        if choice not in CHOICES:
            raise InvalidInput(f"a choice is one of {', '.join(CHOICES)}")
        values = event_values("choice", user_id, idempotency_key, choice=choice)

        def work(connection: Connection) -> None:
            if not add_event(connection, t.comparisons, clean_text(comparison_id), values):
                own = select(t.comparisons.c.id).where(
                    t.comparisons.c.id == comparison_id, t.comparisons.c.user_id == user_id
                )
                if connection.execute(own).one_or_none() is None:
                    raise UnknownId(f"no comparison {comparison_id[:80]!r}")

        self._group.run(work)

    def statements_on(self, answer_id: str, user_id: str) -> OwnStatements:
        """The current statements of a user on an answer of theirs."""
        with self._database.read() as connection:
            conversation_id = own_turn(connection, answer_id, user_id)["conversation_id"]
            said = read_own_statements(connection, answer_id, conversation_id, user_id)
        return OwnStatements(
            next((vote_of(each) for each in said if each["kind"] == "vote" and each["vote"]), None),
            next((each["correction"] for each in said if each["kind"] == "correction"), None),
            tuple(choice_of(each) for each in said if each["kind"] == "choice"),
        )

    def withdraw(self, answer_id: str, user_id: str) -> None:
        """Take back a user's vote and correction of an answer, and their choices about it.

        A choice that is taken back is a tie, of which nothing is learnt. Does nothing where nothing
        is said.
        """

        def work(connection: Connection) -> None:
            conversation_id = own_turn(connection, answer_id, user_id)["conversation_id"]
            for said in read_own_statements(connection, answer_id, conversation_id, user_id):
                kind = said["kind"]
                if said[kind] == TAKEN_BACK[kind]:
                    continue
                values = event_values(kind, user_id, None, **{kind: TAKEN_BACK[kind]})
                if kind == "choice":
                    add_event(connection, t.comparisons, said["comparison_id"], values)
                else:
                    add_event(connection, t.answers, answer_id, values)
                if kind == "vote":
                    note_liked(connection, answer_id, user_id, liked=False)

        self._group.run(work)

    def _add_event(
        self,
        kind: str,
        answer_id: str,
        user_id: str,
        idempotency_key: str | None,
        then: Callable[[Connection, str, str], None] | None = None,
        **said: Any,
    ) -> None:
        """Add an event about an answer of this user's, unless the same was sent before.

        `then` is called with connection, answer and user where it was added.
        """
        values = event_values(kind, user_id, idempotency_key, **said)

        def work(connection: Connection) -> None:
            if not add_event(connection, t.answers, clean_text(answer_id), values):
                own_turn(connection, answer_id, user_id)  # a replay, or not this user's
            elif then is not None:
                then(connection, answer_id, user_id)

        self._group.run(work)


def _are_one_question(
    connection: Connection, left: Mapping[str, Any], right: Mapping[str, Any]
) -> bool:
    """Return whether two turns are one, or of one conversation and shown the very same messages."""
    if left["id"] == right["id"]:
        return True
    same = ("conversation_id", "parent_answer_id", "template_hash", "question")
    query = select(t.turns.c.prompt).where(t.turns.c.id.in_((left["id"], right["id"])))
    one, other = connection.execute(query).scalars()
    return one == other and all(left[name] == right[name] for name in same)


def require_reasons(vote: int, reasons: Sequence[str]) -> None:
    """Raise `InvalidInput` for a number that is no vote, and a word that is no reason for it."""
    if vote not in REASONS_OF:
        raise InvalidInput("a vote is 1 (up), -1 (down) or 0 (cleared)")
    if unknown := set(reasons) - set(REASONS_OF[vote]):
        known = ", ".join(REASONS_OF[vote]) or "none"
        raise InvalidInput(f"{min(unknown)[:40]!r} is no reason for this vote; known: {known}")
