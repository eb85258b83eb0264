"""The store: everything people asked, got and said. Opens it, imports into it, counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import func, select

from engine.prompts.modes import PromptTemplate
from feedback_store.records import ImportedTurn, SyncedTurn
from feedback_store.storage import tables as t
from feedback_store.storage.answers import AnswerStore
from feedback_store.storage.counters import Counters
from feedback_store.storage.database import Database
from feedback_store.storage.group_commit import GroupCommit
from feedback_store.storage.import_writer import add_conversations, add_imported
from feedback_store.storage.statement_store import StatementStore
from feedback_store.storage.synced_turns import SyncKind, sync_turns
from feedback_store.storage.turns import insert_template
from feedback_store.storage.writers import AnswerWriters

MIGRATIONS = Path(__file__).with_name("migrations")


class FeedbackStore(AnswerStore, AnswerWriters, StatementStore):
    """The store of one database, whose tables it brings to their newest version."""

    def __init__(self, database: Database) -> None:
        group = GroupCommit(database)
        AnswerStore.__init__(self, database, group)
        AnswerWriters.__init__(self, database, self.writer)
        StatementStore.__init__(self, database, group)
        self._counters = Counters(database)
        database.migrate(MIGRATIONS, version_table="alembic_version_feedback")

    def add_imported(
        self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str
    ) -> int:
        """Store turns from elsewhere, in one transaction; returns how many.

        Turns of one conversation, or of one prompt where they name none, share a conversation
        here, so that they fall on the same side of a snapshot's split.
        """
        with self._database.write() as connection:
            insert_template(connection, template)
            return add_imported(connection, turns, template, user_id)

    def add_conversations(
        self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str
    ) -> int:
        """Store a person's conversations from elsewhere in their list, in one transaction.

        What this person imported before is not stored again. `template` adds nothing to a prompt.
        Returns how many conversations have something new.
        """
        with self._database.write() as connection:
            insert_template(connection, template)
            return add_conversations(connection, turns, template, user_id)

    def sync_turns(
        self, turns: Iterable[SyncedTurn], template: PromptTemplate
    ) -> Counter[SyncKind]:
        """Store what people say now on another chat page, in one transaction; see `synced_turns`.

        Returns the number of turns, of those whose answer was made here, and of new statements.
        """
        with self._database.write() as connection:
            insert_template(connection, template)
            return sync_turns(connection, turns, template)

    def event_count(self) -> int:
        """The number of feedback events; grows with each one."""
        with self._database.read() as connection:
            query = select(func.count()).select_from(t.events)
            return int(connection.execute(query).scalar_one())

    def counts(self) -> dict[str, int]:
        """The number of turns, answers and statements, by name."""
        return self._counters.counts()
