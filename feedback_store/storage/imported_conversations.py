"""The import of conversations into a person's list: titles, branches and the search.

A file's turn brings its whole prompt. Where that begins with the prompt and the answer of another
turn of the same conversation, the one follows the other. What the person imported before and has
not deleted is found again by what was said, and only what is new is added to it. Knows tables and
value types; knows no file formats.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from engine.common_prefix import common_prefix_length
from engine.excerpts import cut_at_word
from engine.messages import Message, is_blank, messages_from_dicts
from engine.storage import digest_json
from feedback_store.examples.split import split_of
from feedback_store.records import ImportedTurn
from feedback_store.storage import tables as t
from feedback_store.storage.listing import title_of
from feedback_store.storage.search import document_row

MAX_IMPORTED_TITLE_CHARS = 200


@dataclass
class NewTurn:
    """An imported turn on its way into the tables."""

    turn: ImportedTurn
    at: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    conversation_id: str = ""
    parent_answer_id: str | None = None
    # Whether its prompt is the questions and answers before it, and need not be stored again
    follows_parents: bool = False
    answer_ids: list[str] = field(init=False)
    # A digest of each beginning of its prompt, the shortest first
    beginnings: list[bytes] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Give it a conversation, as the same turn from another file gets it, and ids."""
        self.conversation_id = _imported_id(_key(self.turn))
        self.answer_ids = [uuid.uuid4().hex for _ in self.turn.answers]


@dataclass
class _Conversation:
    """One of this import. The branch that it was left at is shown, else the last of the deepest."""

    id: str
    title: str
    updated_at: float = 0.0
    is_named: bool = False  # by the file
    is_listed: bool = False  # by an earlier import
    has_news: bool = False
    depth: float = 0  # messages before the answer that is shown
    shown_answer_id: str | None = None
    # By a digest of all that was said up to and with it
    answers: dict[bytes, str] = field(default_factory=dict)
    follow_parents: set[str] = field(default_factory=set)  # answers to turns that do

    def take(self, new: NewTurn) -> bool:
        """Return whether a turn is new; what it says of the conversation counts in any case."""
        turn = new.turn
        answers = (Message("assistant", answer.text) for answer in turn.answers)
        ends = [_after(new.beginnings[-1], answer) for answer in answers]
        is_new = not ends or any(end not in self.answers for end in ends)
        for end, answer_id in zip(ends, new.answer_ids, strict=True):
            self.answers.setdefault(end, answer_id)
        self.has_news |= is_new
        self.updated_at = max(self.updated_at, new.at if turn.time is None else turn.time)
        depth = len(turn.prompt) if turn.left_at is None else float("inf")
        if ends and depth >= self.depth:
            self.depth, self.shown_answer_id = depth, self.answers[ends[turn.left_at or 0]]
        return is_new

    def place(self, new: NewTurn) -> None:
        """Find the answer that ends the longest part of the prompt that another turn brought."""
        new.conversation_id = self.id
        *before, _ = new.beginnings
        parents = (self.answers.get(each) for each in reversed(new.beginnings))
        new.parent_answer_id = next((each for each in parents if each is not None), None)
        last = self.answers.get(before[-1]) if before else None
        new.follows_parents = not before or last in self.follow_parents
        if new.follows_parents:
            self.follow_parents.update(new.answer_ids)


class ImportedLists:
    """The conversations of one import: no other person's is among them."""

    def __init__(self, connection: Connection, user_id: str) -> None:
        self._connection = connection
        self._user_id = user_id
        self._conversations: dict[str, _Conversation] = {}  # by the id without a list
        self._digests = _PromptDigests()

    def add(self, turns: Sequence[NewTurn]) -> list[NewTurn]:
        """Give turns their conversations and parents, and write what lists and search need.

        A turn finds its parent before it or among those of the same call. Returns those that are
        new, and are to be stored.
        """
        begun: list[_Conversation] = []
        of: dict[str, _Conversation] = {}
        for new in turns:
            new.beginnings = self._digests.beginnings_of(new.turn.prompt)
            conversation = self._conversations.get(new.conversation_id)
            if conversation is None:
                conversation = self._own(new)
                self._conversations[new.conversation_id] = conversation
                begun += [] if conversation.is_listed else [conversation]
            if conversation.take(new):
                of[new.id] = conversation
        added = [new for new in turns if new.id in of]
        for new in sorted(added, key=lambda new: len(new.turn.prompt)):
            of[new.id].place(new)
        self._write(begun)
        documents = [row for new in added for row in self._documents(new)]
        named = (each for each in begun if each.is_named)  # else found by the question
        documents += [document_row(each.id, self._user_id, each.title) for each in named]
        if documents := [row for row in documents if row["terms"]]:
            self._connection.execute(insert(t.search_documents), documents)
        return added

    def finish(self) -> int:
        """Say which branch each conversation shows, now that all of them are there.

        Returns how many have something new; the others are left as they are.
        """
        changed = [each for each in self._conversations.values() if each.has_news]
        values = [
            {"this": each.id, "shown": each.shown_answer_id, "at": each.updated_at}
            for each in changed
        ]
        if values:
            self._connection.execute(
                update(t.conversations)
                .where(t.conversations.c.id == bindparam("this"))
                .values(shown_answer_id=bindparam("shown"), updated_at=bindparam("at")),
                values,
            )
        return len(changed)

    def _own(self, new: NewTurn) -> _Conversation:
        """The person's conversation from an earlier import, else one with an id that nobody has.

        Both are on the side of the split that the conversation always falls on.
        """
        side, key = split_of(new.conversation_id), _key(new.turn)
        listed = t.conversations.c
        for number in count():
            name = _imported_id([self._user_id, number, key])
            if split_of(name) != side:
                continue
            row = self._connection.execute(select(t.conversations).where(listed.id == name)).first()
            if row is not None and row.user_id == self._user_id and row.deleted_at is None:
                found = _Conversation(name, row.title, row.updated_at, is_listed=True)
                self._remember(found)
                return found
            if row is None and not self._taken(name):
                is_named = not is_blank(new.turn.title)
                return _Conversation(name, _title(new.turn), is_named=is_named)
        raise AssertionError  # `count` does not end

    def _taken(self, conversation_id: str) -> bool:
        query = select(t.turns.c.id).where(t.turns.c.conversation_id == conversation_id).limit(1)
        return self._connection.execute(query).first() is not None

    def _remember(self, conversation: _Conversation) -> None:
        """Note what is stored of a conversation."""
        turns, answers = t.turns.c, t.answers.c
        query = (
            select(answers.id, answers.text, turns.question, turns.prompt, turns.parent_answer_id)
            .join(t.turns, turns.id == answers.turn_id)
            .where(turns.conversation_id == conversation.id)
        )
        rows: dict[str, Any] = {row.id: row for row in self._connection.execute(query)}
        digests: dict[str | None, bytes] = {}
        for row in rows.values():
            path = []  # up to an answer whose digest is known, or that has its own prompt
            up = row
            while up is not None and up.id not in digests:
                path.append(up)
                up = rows.get(up.parent_answer_id) if up.prompt is None else None
            for at in reversed(path):
                if at.prompt is None:
                    asked = Message("user", at.question)
                    before = _after(digests.get(at.parent_answer_id, b""), asked)
                    conversation.follow_parents.add(at.id)
                else:
                    before = _beginnings(messages_from_dicts(at.prompt))[-1]
                digests[at.id] = _after(before, Message("assistant", at.text))
                conversation.answers[digests[at.id]] = at.id

    def _write(self, begun: Sequence[_Conversation]) -> None:
        rows = [
            {
                "id": each.id,
                "user_id": self._user_id,
                "title": each.title,
                "updated_at": each.updated_at,
            }
            for each in begun
        ]
        if rows:
            self._connection.execute(insert(t.conversations), rows)

    def _documents(self, new: NewTurn) -> Iterator[dict[str, str]]:
        conversation_id, user_id = new.conversation_id, self._user_id
        question = new.turn.prompt[-1].content
        yield document_row(conversation_id, user_id, question, turn_id=new.id)
        for answer_id, answer in zip(new.answer_ids, new.turn.answers, strict=True):
            yield document_row(conversation_id, user_id, answer.text, answer_id=answer_id)


class _PromptDigests:
    """Digests of the beginnings of prompts, of which each mostly goes on from the one before.

    What two prompts share is digested once, since a conversation of n turns has n prompts.
    """

    def __init__(self) -> None:
        self._prompt: tuple[Message, ...] = ()
        self._digests: list[bytes] = []

    def beginnings_of(self, prompt: tuple[Message, ...]) -> list[bytes]:
        """A digest of each beginning of a prompt, the shortest first."""
        same = common_prefix_length(self._prompt, prompt)
        shared = self._digests[:same]
        self._prompt = prompt
        self._digests = shared + _beginnings(prompt[same:], shared[-1] if shared else b"")
        return self._digests


def _imported_id(parts: object) -> str:
    return f"import-{digest_json(parts)[7:39]}"


def _key(turn: ImportedTurn) -> object:
    """The key of an imported conversation: its name, else the prompt."""
    return turn.conversation or [message.as_dict() for message in turn.prompt]


def _title(turn: ImportedTurn) -> str:
    """The conversation's own title on one line, else its first question."""
    if not is_blank(turn.title):
        return cut_at_word(" ".join(turn.title.split()), MAX_IMPORTED_TITLE_CHARS)
    asked = (m.content for m in turn.prompt if m.role == "user" and not is_blank(m.content))
    return title_of(next(asked, ""))


def _beginnings(messages: Iterable[Message], before: bytes = b"") -> list[bytes]:
    return list(accumulate(messages, _after, initial=before))[1:]


def _after(before: bytes, message: Message) -> bytes:
    """A digest of all that was said, from the digest of what was said before a message."""
    content = message.content.strip().encode()
    return hashlib.sha256(before + f"{message.role}\n".encode() + content).digest()[:16]
