"""The outcome of each statement of a person: the examples that rest on it, or the reasons for none.

Reads only, and only that person's conversations, so that a page takes as long as they have said
things, however many others there are. Their own conversations are derived anew each time, which
shows a vote's example at once; what depends on everybody's examples, such as duplicates, is as of
the last refresh of the training set. Knows no snapshots and no releases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, RowMapping, select

from engine.errors import UnknownId
from feedback_store.curation.decisions import Curation
from feedback_store.examples.rules import DEFAULT_RULES, Rules
from feedback_store.examples.split import SplitName, split_of
from feedback_store.examples.types import SetAside, Unpaired
from feedback_store.records import PromptEvidence
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, batches
from feedback_store.storage.evidence import read_evidence
from feedback_store.storage.statements import JUDGEMENTS, current_statements
from feedback_store.view.annotator_reliability import read_trust
from feedback_store.view.candidates import SET_ASIDE, Candidate, Item
from feedback_store.view.derivation import derive

StatementKind = Literal["vote", "correction", "choice", "flag"]
STATEMENT_COLUMNS = t.columns(
    t.events,
    "id kind answer_id comparison_id user_id vote reasons comment correction choice created_at",
)
TURN_OF_EVENT = [t.turns.c.conversation_id, t.turns.c.question]


@dataclass(frozen=True, slots=True)
class UserStatement:
    """A person's current statement on an answer, or on two that were compared.

    `answer_ids`: the answer that it is about, or the two compared, left and right. `listed`: the
    conversation is in the person's list.
    """

    event_id: int
    kind: StatementKind
    at: float
    conversation_id: str
    listed: bool
    question: str
    answer_ids: tuple[str, ...]
    vote: int = 0
    reasons: tuple[str, ...] = ()
    comment: str = ""
    correction: str = ""
    choice: str = ""


@dataclass(frozen=True, slots=True)
class MadeExample:
    """An example that rests on a statement: a pair, a demonstration, or a lone judgement."""

    id: str
    kind: str
    is_bad: bool = False  # of a lone judgement


@dataclass(frozen=True, slots=True)
class StatementOutcome:
    """The outcome of a statement. Where it made no example, `reasons` say why.

    `split`: what is made of the conversation trains releases, or measures them.
    """

    statement: UserStatement
    made: tuple[MadeExample, ...]
    reasons: tuple[str, ...]
    split: SplitName


class Outcomes:
    """The outcomes of every person's statements, one person at a time."""

    def __init__(
        self, database: Database, curation: Curation, rules: Rules = DEFAULT_RULES
    ) -> None:
        self._database = database
        self._curation = curation
        self._rules = rules

    def of(self, user_id: str) -> list[StatementOutcome]:
        """The outcomes of a person's current statements, the newest first."""
        with self._database.read() as connection:
            statements = _statements(connection, user_id)
            conversations = sorted({each.conversation_id for each in statements})
            evidence = list(read_evidence(connection, conversations))
            rows = self._rows(connection, evidence, conversations)
        gold = self._curation.gold()
        return [
            StatementOutcome(each, *_became(each, rows), split_of(each.conversation_id, gold=gold))
            for each in statements
        ]

    def statement(self, user_id: str, event_id: int) -> UserStatement:
        """One current statement of a person; raises `UnknownId`."""
        with self._database.read() as connection:
            for each in _statements(connection, user_id):
                if each.event_id == event_id:
                    return each
        raise UnknownId(f"no statement {event_id}")

    def _rows(
        self,
        connection: Connection,
        evidence: Sequence[PromptEvidence],
        conversations: Sequence[str],
    ) -> dict[int, list[tuple[MadeExample | None, str]]]:
        """The rows by event: each example that rests on it, or None, and why it is set aside."""
        people = {each.user_id for each in evidence}
        for each in evidence:
            people |= {said.user_id for said in each.statements}
        refusing = frozenset(user for user in people if not self._curation.consents(user))
        rules = replace(self._rules, refusing_users=refusing)
        derived = derive(evidence, rules, read_trust(connection, conversations))
        against = _set_aside_later(connection, conversations)
        found: dict[int, list[tuple[MadeExample | None, str]]] = defaultdict(list)
        for candidate in derived.rows:
            row = derived.items[candidate.key]
            made, reason = _made(candidate, row), against.get(candidate.key, "")
            if isinstance(row, SetAside):
                reason = row.reason
            for event_id in _events_of(row):
                found[event_id].append((made, reason))
        return found


def _became(
    said: UserStatement, rows: Mapping[int, Sequence[tuple[MadeExample | None, str]]]
) -> tuple[tuple[MadeExample, ...], tuple[str, ...]]:
    """The examples that count, or else the reasons why there is none, each once."""
    about = rows.get(said.event_id, ())
    made = tuple(example for example, reason in about if example is not None and not reason)
    return made, () if made else tuple(dict.fromkeys(reason for _, reason in about))


def _made(candidate: Candidate, row: Item) -> MadeExample | None:
    if isinstance(row, SetAside):
        return None
    return MadeExample(candidate.key, candidate.kind, isinstance(row, Unpaired) and not row.label)


def _events_of(row: Item) -> Collection[int]:
    return row.event_ids if isinstance(row, SetAside) else row.origin.event_ids


def _set_aside_later(connection: Connection, conversations: Sequence[str]) -> dict[str, str]:
    """Examples that the operator's decisions, duplicates or shares speak against, and why."""
    columns = t.candidates.c
    found: dict[str, str] = {}
    for some in batches(conversations):
        query = select(columns.key, columns.reason).where(
            columns.conversation_id.in_(some),
            columns.status == SET_ASIDE,
            columns.kind != SET_ASIDE,
        )
        found |= {row.key: row.reason for row in connection.execute(query)}
    return found


# Statements


def _statements(connection: Connection, user_id: str) -> list[UserStatement]:
    """The latest of each kind about each answer or comparison, the newest first.

    In conversations that are not deleted; a vote that was taken back is none.
    """
    rows = sorted(
        (*_about_answers(connection, user_id), *_about_comparisons(connection, user_id)),
        key=lambda row: int(row["id"]),
    )
    current = [r for r in current_statements(rows) if r["kind"] != "vote" or r["vote"]]
    listed = _listed(connection, {row["conversation_id"] for row in current})
    return sorted(
        (
            _statement(row, bool(listed[row["conversation_id"]]))
            for row in current
            if listed[row["conversation_id"]] is not None
        ),
        key=lambda said: -said.event_id,
    )


def _about_answers(connection: Connection, user_id: str) -> list[RowMapping]:
    """The kinds are chosen here and not in the query, which might read every vote there is then."""
    query = (
        select(*STATEMENT_COLUMNS, *TURN_OF_EVENT)
        .join(t.answers, t.answers.c.id == t.events.c.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(t.events.c.user_id == user_id)
    )
    rows = connection.execute(query).mappings().all()
    return [row for row in rows if row["kind"] in JUDGEMENTS]


def _about_comparisons(connection: Connection, user_id: str) -> Sequence[RowMapping]:
    """Leave out a reviewer's choices on the console, which are about other people's questions."""
    sides = t.comparisons.c.left_answer_id, t.comparisons.c.right_answer_id
    query = (
        select(*STATEMENT_COLUMNS, *TURN_OF_EVENT, *sides)
        .join(t.comparisons, t.comparisons.c.id == t.events.c.comparison_id)
        .join(t.turns, t.turns.c.id == t.comparisons.c.turn_id)
        .where(t.events.c.user_id == user_id, t.turns.c.user_id == user_id)
    )
    return connection.execute(query).mappings().all()


def _listed(connection: Connection, conversation_ids: Collection[str]) -> dict[str, bool | None]:
    """Look up whether conversations are in a list; None: deleted, and waiting to be erased."""
    found: dict[str, bool | None] = dict.fromkeys(conversation_ids, False)
    columns = t.conversations.c
    for some in batches(conversation_ids):
        query = select(columns.id, columns.deleted_at).where(columns.id.in_(some))
        for row in connection.execute(query):
            found[row.id] = True if row.deleted_at is None else None
    return found


def _statement(row: RowMapping, listed: bool) -> UserStatement:
    compared = row["comparison_id"] is not None
    return UserStatement(
        row["id"],
        row["kind"],
        row["created_at"],
        row["conversation_id"],
        listed,
        row["question"],
        (row["left_answer_id"], row["right_answer_id"]) if compared else (row["answer_id"],),
        row["vote"] or 0,
        tuple(row["reasons"] or ()),
        row["comment"] or "",
        row["correction"] or "",
        row["choice"] or "",
    )
