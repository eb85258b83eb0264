"""A person's own import into their list: conversations, titles, branches and the search.

A file's turn brings its whole prompt. Where that begins with the prompt and the answer of another
turn of the same conversation, the one follows the other. Knows tables and value types; knows no
file formats.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from sqlalchemy import Connection, bindparam, insert, select, update

from engine.messages import Message, is_blank
from engine.storage import digest_json
from feedback_store import tables as t
from feedback_store.listing import title_of
from feedback_store.records import ImportedTurn
from feedback_store.search import document_row
from feedback_store.split import split_of


@dataclass
class NewTurn:
    """An imported turn on its way into the tables."""

    turn: ImportedTurn
    at: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    conversation_id: str = ""
    parent_answer_id: str | None = None
    answer_ids: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Give it a conversation, as the same turn from another file gets it, and ids."""
        self.conversation_id = _imported_id(_key(self.turn))
        self.answer_ids = [uuid.uuid4().hex for _ in self.turn.answers]


@dataclass
class _Conversation:
    """One of this import. The deepest branch is shown; of several, the last."""

    id: str
    updated_at: float
    depth: int = 0  # messages before the answer that is shown
    shown_answer_id: str | None = None


class ImportedLists:
    """The conversations of one import: no other's, and no other person's, is among them."""

    def __init__(self, connection: Connection, user_id: str) -> None:
        self._connection = connection
        self._user_id = user_id
        self._conversations: dict[str, _Conversation] = {}  # by the id without a list
        # By conversation and digest of all that was said up to and with it
        self._answers: dict[tuple[str, bytes], str] = {}

    def add(self, turns: Sequence[NewTurn]) -> None:
        """Give turns their conversations and parents, and write what lists and search need.

        A turn finds its parent before it or among those of the same call.
        """
        begun: list[_Conversation] = []
        titles: list[str] = []
        for new in turns:
            conversation = self._conversations.get(new.conversation_id)
            if conversation is None:
                conversation = _Conversation(self._own_id(new), new.at)
                self._conversations[new.conversation_id] = conversation
                begun.append(conversation)
                titles.append(_first_title(new.turn.prompt))
            new.conversation_id = conversation.id
            conversation.updated_at = new.at
            if new.answer_ids and len(new.turn.prompt) >= conversation.depth:
                conversation.depth = len(new.turn.prompt)
                conversation.shown_answer_id = new.answer_ids[0]
            self._remember(new)
        for new in turns:
            new.parent_answer_id = self._parent_of(new)
        self._write(begun, titles)
        documents = [row for new in turns for row in self._documents(new) if row["terms"]]
        if documents:
            self._connection.execute(insert(t.search_documents), documents)

    def finish(self) -> None:
        """Say which branch each conversation shows, now that all of them are there."""
        values = [
            {"this": each.id, "shown": each.shown_answer_id, "at": each.updated_at}
            for each in self._conversations.values()
        ]
        if values:
            self._connection.execute(
                update(t.conversations)
                .where(t.conversations.c.id == bindparam("this"))
                .values(shown_answer_id=bindparam("shown"), updated_at=bindparam("at")),
                values,
            )

    def _own_id(self, new: NewTurn) -> str:
        """An id that nobody has, on the side of the split that the conversation always falls on."""
        side = split_of(new.conversation_id)
        ids = (_imported_id([self._user_id, n, _key(new.turn)]) for n in count())
        return next(each for each in ids if split_of(each) == side and not self._taken(each))

    def _taken(self, conversation_id: str) -> bool:
        query = select(t.turns.c.id).where(t.turns.c.conversation_id == conversation_id).limit(1)
        return self._connection.execute(query).first() is not None

    def _remember(self, new: NewTurn) -> None:
        for answer_id, answer in zip(new.answer_ids, new.turn.answers, strict=True):
            said = (*new.turn.prompt, Message("assistant", answer.text))
            *_, whole = _beginnings(said)
            self._answers.setdefault((new.conversation_id, whole), answer_id)

    def _parent_of(self, new: NewTurn) -> str | None:
        """The answer that ends the longest part of the prompt that another turn brought."""
        known = [
            self._answers.get((new.conversation_id, each)) for each in _beginnings(new.turn.prompt)
        ]
        return next((answer for answer in reversed(known) if answer is not None), None)

    def _write(self, begun: Sequence[_Conversation], titles: Sequence[str]) -> None:
        rows = [
            {"id": each.id, "user_id": self._user_id, "title": title, "updated_at": each.updated_at}
            for each, title in zip(begun, titles, strict=True)
        ]
        if rows:
            self._connection.execute(insert(t.conversations), rows)

    def _documents(self, new: NewTurn) -> Iterator[dict[str, str]]:
        conversation_id, user_id = new.conversation_id, self._user_id
        question = new.turn.prompt[-1].content
        yield document_row(conversation_id, user_id, question, turn_id=new.id)
        for answer_id, answer in zip(new.answer_ids, new.turn.answers, strict=True):
            yield document_row(conversation_id, user_id, answer.text, answer_id=answer_id)


def _imported_id(parts: object) -> str:
    return f"import-{digest_json(parts)[7:39]}"


def _key(turn: ImportedTurn) -> object:
    """What an imported conversation is told by: its name, else the prompt."""
    return turn.conversation or [message.as_dict() for message in turn.prompt]


def _first_title(prompt: Iterable[Message]) -> str:
    asked = (m.content for m in prompt if m.role == "user" and not is_blank(m.content))
    return title_of(next(asked, ""))


def _beginnings(messages: Iterable[Message]) -> Iterator[bytes]:
    """A digest of each beginning of a list of messages, the shortest first."""
    said = hashlib.sha256()
    for message in messages:
        content = message.content.strip().encode()
        said.update(f"{message.role} {len(content)}\n".encode() + content)
        yield said.copy().digest()[:16]
