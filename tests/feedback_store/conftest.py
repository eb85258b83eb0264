"""A store in a fresh SQLite file, and a short way to have a conversation in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.prompts.modes import PromptTemplate, make_template
from feedback_store.database import Database
from feedback_store.records import AnswerStatus
from feedback_store.store import FeedbackStore

PLAIN = make_template("plain", ())


class Conversations:
    """Asks, answers and regenerates in a store, with the values a test does not care about."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store

    def ask(
        self,
        question: str = "What is a leaf?",
        text: str = "A leaf.",
        *,
        user: str = "ann",
        conversation: str = "c1",
        parent: str | None = None,
        template: PromptTemplate = PLAIN,
    ) -> str:
        """A finished answer to a new turn; returns the answer's id."""
        turn = self._store.add_turn(
            user_id=user, question=question, template=template,
            conversation_id=conversation, parent_answer_id=parent,
        )  # fmt: skip
        return self.finish(self.begin(turn.id), text)

    def again(self, answer_id: str, text: str, *, user: str = "ann") -> str:
        """Another finished answer to the same turn."""
        return self.finish(self.begin(self._store.turn_of(answer_id, user).id), text)

    def begin(self, turn_id: str) -> str:
        """An answer that is still streaming."""
        return self._store.begin_answer(
            turn_id, base_digest="sha256:base", adapter_digest=None, sampling={}, seed=0
        )

    def finish(self, answer_id: str, text: str, status: AnswerStatus = "done") -> str:
        """End an answer."""
        self._store.finish_answer(answer_id, status=status, text=text, complete=True)
        return answer_id


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'burnish.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> FeedbackStore:
    return FeedbackStore(database)


@pytest.fixture
def talk(store: FeedbackStore) -> Conversations:
    return Conversations(store)
