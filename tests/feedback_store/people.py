"""People who leave a canary in everything they say, and a look for what is left of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select, update

from feedback_store.curation.decisions import Curation
from feedback_store.examples.split import split_of
from feedback_store.examples.types import Pair, TrainingExample
from feedback_store.personal.feedback_examples import FeedbackExamples
from feedback_store.personal.shared_examples import SharedExamples
from feedback_store.snapshots.snapshot import Snapshot, freeze, open_snapshot
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import examples_now

Rows = dict[str, list[str]]


@dataclass
class Person:
    """Somebody with two conversations on the training side and one that is held out."""

    name: str
    conversations: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"user-{self.name}-7f3a"

    @property
    def canary(self) -> str:
        return f"canary-{self.name}-c0ffee"

    @property
    def marks(self) -> tuple[str, ...]:
        """What no file and no row may hold once this person is forgotten."""
        return self.id, self.canary, *self.conversations


class People:
    """A store with its training set, in which persons speak."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = FeedbackStore(database)
        self.curation = Curation(database)
        self.training_set = TrainingSet(EvidenceReader(database), self.curation)
        self.shared = SharedExamples(database, self.curation)
        self.examples = FeedbackExamples(database, None, self.shared)
        self._talk = Conversations(self.store)

    def speaks(self, name: str) -> Person:
        """Everything a person can say, and what an operator can decide about it."""
        person = Person(
            name, [_conversation(name, side) for side in ("train", "train2", "heldout")]
        )
        self._votes(person, person.conversations[0])
        self._corrects(person, person.conversations[1])
        self._compares(person, person.conversations[2])
        self.curation.set_consent(person.id, True)
        self.curation.mark_gold(person.conversations[2])
        self._operator_decides(person)
        return person

    def _votes(self, person: Person, conversation: str) -> None:
        good, bad = self._two_answers(person, conversation)
        self.store.vote(good, person.id, 1, reasons=["safe"], comment=f"{person.canary} comment")
        self.store.vote(bad, person.id, -1, comment=f"{person.canary} comment")
        self.store.note(good, person.id, "copy", idempotency_key=f"{person.canary} key")
        self.shared.approve(good)

    def _corrects(self, person: Person, conversation: str) -> None:
        first, flagged = self._two_answers(person, conversation)
        self.store.correct(first, person.id, f"{person.canary} correction")
        self.examples.remove(person.id, first)
        self.store.note(flagged, person.id, "flag")
        self._ask(person, conversation, parent=first)

    def _compares(self, person: Person, conversation: str) -> None:
        left, right = self._two_answers(person, conversation)
        self.store.choose(self.store.compare(left, right, person.id).id, person.id, "left")

    def _operator_decides(self, person: Person) -> None:
        """One example is excluded, one edited, and one exclusion taken back."""
        note, examples = f"{person.canary} note", examples_now(self.training_set)
        voted, corrected, compared = (
            next(p for p in examples.pairs if p.origin.conversation_id == conversation)
            for conversation in person.conversations
        )
        demonstration = next(
            d
            for d in examples.demonstrations
            if d.origin.conversation_id == person.conversations[0]
        )
        self.curation.exclude(demonstration, note)
        self.curation.edit(corrected, chosen=f"{person.canary} edited", note=note)
        for example in (voted, compared):
            self.curation.exclude(example, note)
            self.curation.take_back(example.id, note)

    def _two_answers(self, person: Person, conversation: str) -> tuple[str, str]:
        first = self._ask(person, conversation)
        again = self._talk.again(first, f"{person.canary} {conversation} B", user=person.id)
        return first, again

    def _ask(self, person: Person, conversation: str, parent: str | None = None) -> str:
        return self._talk.ask(
            f"{person.canary} {conversation} question",
            f"{person.canary} {conversation} A",
            user=person.id,
            conversation=conversation,
            parent=parent,
        )

    def pairs(self) -> list[Pair]:
        """The pairs of now."""
        return examples_now(self.training_set).pairs

    def freeze(self, root: Path) -> str:
        """A snapshot of now."""
        self.training_set.refresh(reestimate=True)
        selected, examples = self.training_set.load_examples()
        return freeze(root, examples, last_event=selected.last_event, gold=self.curation.gold())


def _conversation(name: str, side: str) -> str:
    """An id on a side of the split."""
    ids = (f"conversation-{name}-{side}-{number}" for number in range(1000))
    return next(each for each in ids if split_of(each) == side.rstrip("2"))


def all_rows(database: Database, *, derived: bool = False) -> Rows:
    """Every row of every table as text, but erasures, and but what is derived from others."""
    left_out = {tables.erasures, *(() if derived else tables.DERIVED)}
    with database.read() as connection:
        return {
            table.name: sorted(map(str, connection.execute(select(table)).mappings()))
            for table in tables.feedback_metadata.sorted_tables
            if table not in left_out
        }


def without(rows: Rows, person: Person) -> Rows:
    """Rows that hold no mark of a person."""
    theirs = [row for row in rows["answers"] if any(mark in row for mark in person.marks)]
    marks = {*person.marks, *(re.findall(r"'id': '(\w+)'", row)[0] for row in theirs)}
    return {
        name: [row for row in each if not any(mark in row for mark in marks)]
        for name, each in rows.items()
    }


def files_with(home: Path, marks: Iterable[str]) -> list[str]:
    """Files under a folder that hold one of these strings, in name or content."""
    wanted = [mark.encode() for mark in marks]
    return sorted(
        str(path.relative_to(home))
        for path in home.rglob("*")
        if any(mark in str(path.relative_to(home)).encode() for mark in wanted)
        or (path.is_file() and any(mark in path.read_bytes() for mark in wanted))
    )


def examples_of(root: Path, digest: str) -> list[TrainingExample]:
    """All examples of a snapshot."""
    snapshot: Snapshot = open_snapshot(root, digest)
    splits = (snapshot.train, snapshot.heldout, snapshot.gold)
    return [example for split in splits for example in split.examples]


def mark_old(database: Database, *conversations: str, at: float = 100.0) -> None:
    """Let the turns of conversations have been asked long ago."""
    turns = tables.turns
    with database.write() as connection:
        where = turns.c.conversation_id.in_(conversations)
        connection.execute(update(turns).where(where).values(created_at=at))
