"""The list of a person's conversations: listing, searching, reading, naming and deleting.

Every method is one transaction and one person's: a conversation that is unknown, deleted or
somebody else's gets the same `UnknownId`. Knows tables; knows no engine and no page.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, or_, select, update

from engine.errors import UnknownId
from engine.messages import clean_text, require_text
from feedback_store.conversations.branches import Branches
from feedback_store.records import StoredAnswer, Turn
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import answer_columns
from feedback_store.storage.search import add_document, excerpt, newest_hits, parse_query, read_hits
from feedback_store.storage.statements import current_statements

MAX_GIVEN_TITLE_CHARS = 200
SHOWN_STATEMENTS = ("vote", "correction", "flag")
SUMMARY = t.columns(t.conversations, "id title pinned updated_at")
# Alternatives that wait to be compared are no part of the conversation yet
HIDDEN = select(t.alternatives.c.answer_id).where(t.alternatives.c.shown == 0)
TurnRows = Mapping[str, RowMapping]
TURN = [t.turns.c[name] for name in Turn.__dataclass_fields__]


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A conversation in the list."""

    id: str
    title: str
    pinned: bool
    updated_at: float


@dataclass(frozen=True, slots=True)
class FoundConversation:
    """A conversation in which all words were found, and the text around the first of them."""

    summary: ConversationSummary
    excerpt: str


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A question with the answer that is shown, and what its person says of that answer now."""

    turn: Turn
    created_at: float
    siblings: tuple[str, ...]  # edits of the question, oldest first, itself included
    example_ids: tuple[str, ...]
    answers: tuple[str, ...]  # all to this turn, oldest first
    answer: StoredAnswer
    vote: int
    reasons: tuple[str, ...]
    comment: str
    correction: str | None
    flagged: bool
    passages: tuple[Mapping[str, Any], ...] | None  # of documents; None: asked without any


@dataclass(frozen=True, slots=True)
class ConversationView:
    """The branch of a conversation that is shown, from the first question on."""

    summary: ConversationSummary
    turns: tuple[ShownTurn, ...]
    system: str = ""  # the system prompt of its last question


@dataclass
class _Said:
    """The current statements of a person on an answer."""

    vote: int = 0
    reasons: tuple[str, ...] = ()
    comment: str = ""
    correction: str | None = None
    flagged: bool = False


class Conversations:
    """The conversations of every person, one person at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Lists

    def pinned(self, user_id: str) -> list[ConversationSummary]:
        """The conversations that a person pinned, newest first."""
        return self._list(user_id, t.conversations.c.pinned == 1)

    def page(
        self, user_id: str, *, before: tuple[float, str] | None = None, limit: int = 50
    ) -> list[ConversationSummary]:
        """The conversations that are not pinned, newest first.

        `before` is the last one of the page before: its (updated_at, id).
        """
        which = [t.conversations.c.pinned == 0]
        if before is not None:
            at, last = t.conversations.c.updated_at, t.conversations.c.id
            older = and_(at == before[0], last < clean_text(before[1]))
            which += [at <= before[0], or_(at < before[0], older)]
        return self._list(user_id, *which, limit=limit)

    def search(self, user_id: str, words: str, *, limit: int = 50) -> list[FoundConversation]:
        """The conversations with the newest texts in which every word occurs, newest first.

        A text is a question, an answer or a title. Of a last word that is still being typed the
        beginning is enough. Raises `InvalidText` for words that are too long.
        """
        query = parse_query(words)
        if query is None:
            return []
        with self._database.read() as connection:
            hits = newest_hits(connection, user_id, query, limit)
            texts = read_hits(connection, hits)
            which = t.conversations.c.id.in_([hit.conversation_id for hit in hits])
            summaries = _summaries(connection, which)
        said = {hit.conversation_id: texts.get(hit.turn_id or hit.answer_id or "") for hit in hits}
        return [FoundConversation(s, excerpt(said[s.id] or s.title, query)) for s in summaries]

    # One

    def view(self, conversation_id: str, user_id: str) -> ConversationView:
        """The branch of a conversation that is shown, with an answer that is still being made."""
        with self._database.read() as connection:
            row = _own(connection, conversation_id, user_id)
            branches, turns = _rows(connection, conversation_id, user_id)
            shown = row["shown_answer_id"]
            if shown not in branches.turn_of:
                shown = branches.newest_leaf(None)
            branch = branches.branch(shown) if shown else []
            answers = _answers(connection, branch)
            said = _said(connection, branch, user_id)
            last = turns[answers[branch[-1]].turn_id] if branch else None
            system = _system_prompt(connection, last["template_hash"]) if last else ""
        shown_turns = (
            _shown_turn(branches, turns, answers[each], said.get(each, _Said())) for each in branch
        )
        return ConversationView(_summary(row), tuple(shown_turns), system)

    def show(self, conversation_id: str, user_id: str, answer_id: str) -> None:
        """Show the branch of an answer, down to the newest leaf below it."""
        with self._database.write() as connection:
            _own(connection, conversation_id, user_id)
            branches, _ = _rows(connection, conversation_id, user_id)
            if answer_id not in branches.turn_of:
                raise UnknownId(f"no answer {answer_id[:80]!r} in this conversation")
            _set(connection, conversation_id, shown_answer_id=branches.newest_leaf(answer_id))

    def show_turn(self, conversation_id: str, user_id: str, turn_id: str) -> None:
        """Show the branch of an edited question: of its newest answer."""
        with self._database.write() as connection:
            _own(connection, conversation_id, user_id)
            branches, _ = _rows(connection, conversation_id, user_id)
            if turn_id not in branches.parent_of:
                raise UnknownId(f"no question {turn_id[:80]!r} in this conversation")
            newest = branches.answers_of[turn_id][-1]
            _set(connection, conversation_id, shown_answer_id=branches.newest_leaf(newest))

    def rename(self, conversation_id: str, user_id: str, title: str) -> None:
        """Give a conversation a title, which is found in a search from now on."""
        title = " ".join(
            require_text(title, what="title", limit_chars=MAX_GIVEN_TITLE_CHARS).split()
        )
        with self._database.write() as connection:
            _own(connection, conversation_id, user_id)
            _set(connection, conversation_id, title=title)
            add_document(connection, conversation_id, user_id, title)

    def pin(self, conversation_id: str, user_id: str, pinned: bool) -> None:
        """Keep a conversation at the top of the list, or no longer."""
        with self._database.write() as connection:
            _own(connection, conversation_id, user_id)
            _set(connection, conversation_id, pinned=int(pinned))

    # Deleting

    def delete(self, conversation_id: str, user_id: str) -> None:
        """Take a conversation out of lists and search; it can be restored until it is erased."""
        with self._database.write() as connection:
            _own(connection, conversation_id, user_id)
            _set(connection, conversation_id, deleted_at=time.time())

    def restore(self, conversation_id: str, user_id: str) -> None:
        """Take back a deletion."""
        with self._database.write() as connection:
            _own(connection, conversation_id, user_id, deleted=True)
            _set(connection, conversation_id, deleted_at=None)

    def due(self, deleted_before: float) -> list[str]:
        """Conversations that were deleted before a moment, whoever's, to be erased now."""
        query = select(t.conversations.c.id).where(t.conversations.c.deleted_at < deleted_before)
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(t.conversations.c.id)).scalars())

    def _list(
        self, user_id: str, *which: ColumnElement[bool], limit: int | None = None
    ) -> list[ConversationSummary]:
        own = t.conversations.c.user_id == user_id, t.conversations.c.deleted_at.is_(None)
        with self._database.read() as connection:
            return _summaries(connection, *own, *which, limit=limit)


# Rows


def _own(
    connection: Connection, conversation_id: str, user_id: str, *, deleted: bool = False
) -> RowMapping:
    """A person's conversation; `deleted`: whether or not it was."""
    listed = t.conversations.c
    query = select(t.conversations).where(
        listed.id == clean_text(conversation_id), listed.user_id == user_id
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None or (row["deleted_at"] is not None and not deleted):
        raise UnknownId(f"no conversation {conversation_id[:80]!r}")
    return row


def _set(connection: Connection, conversation_id: str, **values: Any) -> None:
    this = t.conversations.c.id == conversation_id
    connection.execute(update(t.conversations).where(this).values(values))


def _summaries(
    connection: Connection, *which: ColumnElement[bool], limit: int | None = None
) -> list[ConversationSummary]:
    newest = t.conversations.c.updated_at.desc(), t.conversations.c.id.desc()
    query = select(*SUMMARY).where(*which).order_by(*newest).limit(limit)
    return [_summary(row) for row in connection.execute(query).mappings()]


def _summary(row: RowMapping) -> ConversationSummary:
    return ConversationSummary(row["id"], row["title"], bool(row["pinned"]), row["updated_at"])


def _rows(connection: Connection, conversation_id: str, user_id: str) -> tuple[Branches, TurnRows]:
    """The tree of a conversation, and its turns by id."""
    own = t.turns.c.conversation_id == conversation_id, t.turns.c.user_id == user_id
    asked = select(*TURN, *t.columns(t.turns, "created_at example_ids passages")).where(*own)
    oldest = asked.order_by(t.turns.c.created_at, t.turns.c.id)
    turns = {row["id"]: row for row in connection.execute(oldest).mappings()}
    given = (
        select(t.answers.c.id, t.answers.c.turn_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(*own, t.answers.c.id.not_in(HIDDEN))
        .order_by(t.answers.c.created_at, t.answers.c.id)
    )
    answers = [(row.id, row.turn_id) for row in connection.execute(given)]
    parents = [(row["id"], row["parent_answer_id"]) for row in turns.values()]
    return Branches(parents, answers), turns


def _answers(connection: Connection, answer_ids: Sequence[str]) -> dict[str, StoredAnswer]:
    query = select(*answer_columns(StoredAnswer)).where(t.answers.c.id.in_(answer_ids))
    return {row.id: StoredAnswer(*row) for row in connection.execute(query)}


def _system_prompt(connection: Connection, template_hash: str) -> str:
    query = select(t.templates.c.definition).where(t.templates.c.hash == template_hash)
    return str(connection.execute(query).scalar_one()["system"])


def _said(connection: Connection, answer_ids: Collection[str], user_id: str) -> dict[str, _Said]:
    """The current statements of a person, by answer."""
    events = t.events.c
    query = select(t.events).where(
        events.answer_id.in_(answer_ids),
        events.user_id == user_id,
        events.kind.in_(SHOWN_STATEMENTS),
    )
    found: dict[str, _Said] = defaultdict(_Said)
    rows = connection.execute(query.order_by(events.id)).mappings()
    for event in current_statements(rows):
        said = found[event["answer_id"]]
        if event["kind"] == "vote":
            said.vote, said.comment = event["vote"], event["comment"] or ""
            said.reasons = tuple(event["reasons"] or ())
        elif event["kind"] == "correction":
            said.correction = event["correction"]
        else:
            said.flagged = True
    return found


def _shown_turn(
    branches: Branches, turns: TurnRows, answer: StoredAnswer, said: _Said
) -> ShownTurn:
    row = turns[answer.turn_id]
    return ShownTurn(
        Turn(**{name: row[name] for name in Turn.__dataclass_fields__}),
        row["created_at"],
        branches.siblings(answer.turn_id),
        tuple(row["example_ids"] or ()),
        tuple(branches.answers_of[answer.turn_id]),
        answer,
        said.vote,
        said.reasons,
        said.comment,
        said.correction,
        said.flagged,
        None if row["passages"] is None else tuple(row["passages"]),
    )
