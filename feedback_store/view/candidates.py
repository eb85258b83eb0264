"""The table of candidates: what each conversation's evidence gives, and what became of it.

Derived, and kept in the database so that no process has to read everything again. Holds no texts:
they are made anew from the evidence when somebody looks. Knows the tables; the rules by which
candidates are made and chosen are `pairing`'s and `selection`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    union,
    update,
)

from engine.storage import digest_json
from feedback_store.examples.pairing import PromptExamples
from feedback_store.examples.rules import OVER_CAP
from feedback_store.examples.shares import users_of
from feedback_store.examples.types import KINDS, Example, SetAside, label_of
from feedback_store.storage import tables as t
from feedback_store.storage.database import insert_once

SET_ASIDE = "set_aside"
IDS_A_QUERY = 5_000  # PostgreSQL takes 65,535 values in one query
ALL_UNWEIGHED = 2**31  # more answers than anybody ever judged
Row = Example | SetAside


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row; the table says what its columns mean."""

    conversation_id: str
    key: str
    kind: str
    source: str
    topic: bytes
    label: int
    first_event: int
    users: str
    place: str
    reason: str


# By a row's number: the row as it was, and as it is to be
Moves = dict[int, tuple[Candidate, Candidate]]


def candidates_of(prompt: PromptExamples) -> Iterator[tuple[Candidate, Row]]:
    """One for each example and each statement that is none."""
    for kind in KINDS:
        for example in getattr(prompt, kind):
            origin = example.origin
            yield (
                Candidate(
                    origin.conversation_id,
                    example.id,
                    kind,
                    example.source,
                    prompt.topic,
                    int(label_of(example)),
                    origin.event_ids[0],
                    "\n".join(users_of(example)),
                    kind,
                    example.source,
                ),
                example,
            )
    for aside in prompt.set_aside:
        key = digest_json([aside.reason, aside.answer_ids, aside.event_ids])
        yield (
            Candidate(
                aside.conversation_id,
                key,
                SET_ASIDE,
                aside.reason,
                prompt.topic,
                0,
                aside.event_ids[0],
                "",
                SET_ASIDE,
                aside.reason,
            ),
            aside,
        )


# State


@dataclass(frozen=True, slots=True)
class State:
    """Up to where the candidates have been derived, and by which rules."""

    rules: str = ""  # digest of what decides beside the evidence
    version: int = 0  # grows with each change to the candidates
    last_event: int = 0
    last_decision: int = 0
    refusing: tuple[str, ...] = ()  # users whose words may not be trained on
    unweighed: int = 0  # answers whose shared votes changed since trust was estimated
    capped: int = 0  # the version for which users' shares were looked at
    flip_rate: float | None = None
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by place and reason


def read_state(connection: Connection) -> State:
    """The state; that of the beginning where nothing was derived yet."""
    state = connection.execute(select(t.training_set.c.state)).scalar_one_or_none()
    return State(**{**state, "refusing": tuple(state["refusing"])}) if state else State()


def write_state(connection: Connection, state: State) -> None:
    """Put a state in the place of the last one."""
    insert_once(connection, t.training_set, {"id": 1, "state": {}})
    connection.execute(update(t.training_set).values(state=asdict(state)))


# Stale conversations


def mark_stale(connection: Connection, conversation_ids: Iterable[str]) -> None:
    """Have the candidates of conversations made anew."""
    rows = [{"conversation_id": conversation_id} for conversation_id in sorted(conversation_ids)]
    if rows:
        insert_once(connection, t.stale, *rows)


def stale_after(connection: Connection, conversation_id: str, count: int) -> list[str]:
    """Some stale conversations, in order, from one on."""
    query = select(t.stale.c.conversation_id).where(t.stale.c.conversation_id > conversation_id)
    query = query.order_by(t.stale.c.conversation_id).limit(count)
    return list(connection.execute(query).scalars())


def unmark_stale(connection: Connection, conversation_ids: Collection[str]) -> None:
    """Their candidates are up to date."""
    _delete(connection, t.stale.c.conversation_id, conversation_ids)


def clear(connection: Connection) -> None:
    """Throw away everything that was derived."""
    for table in (t.candidates, t.stale, t.verdicts):
        connection.execute(delete(table))


def drop(
    connection: Connection, conversation_ids: Collection[str], user_id: str | None = None
) -> None:
    """Throw away what was derived from conversations, some or all of whose rows were erased.

    What is left of them, and what was a duplicate of theirs, is made anew at the next look; so is
    the trust in each user. `user_id`: whom the state, too, is to forget.
    """
    topics = topics_of(connection, conversation_ids)
    alike = _values(connection, t.candidates.c.conversation_id, t.candidates.c.topic, topics)
    touched = {*alike, *conversation_ids}
    for table in (t.candidates, t.verdicts, t.stale):
        _delete(connection, table.c.conversation_id, touched)
    own = t.turns.c.conversation_id
    mark_stale(connection, _values(connection, own, own, touched))
    state = read_state(connection)
    refusing = tuple(user for user in state.refusing if user != user_id)
    write_state(
        connection,
        replace(
            state,
            version=state.version + 1,
            refusing=refusing,
            unweighed=ALL_UNWEIGHED,
            counts=counts(connection),
        ),
    )


# Candidates


def topics_of(connection: Connection, conversation_ids: Collection[str]) -> set[bytes]:
    """What the candidates of conversations are about."""
    return _values(
        connection, t.candidates.c.topic, t.candidates.c.conversation_id, conversation_ids
    )


def about(connection: Connection, topics: Collection[bytes]) -> list[tuple[int, Candidate]]:
    """The examples about topics, trained on or not, each with its row's number."""
    found: list[tuple[int, Candidate]] = []
    for some in _batches(topics):
        query = select(t.candidates).where(
            t.candidates.c.topic.in_(some), t.candidates.c.kind != SET_ASIDE
        )
        found += [(row[0], Candidate(*row[1:])) for row in connection.execute(query).all()]
    return found


def replace_candidates(
    connection: Connection, conversation_ids: Collection[str], rows: Sequence[Candidate]
) -> None:
    """Put candidates in the place of all that the conversations had."""
    _delete(connection, t.candidates.c.conversation_id, conversation_ids)
    if rows:
        columns = Candidate.__dataclass_fields__
        values = [{name: getattr(row, name) for name in columns} for row in rows]
        connection.execute(insert(t.candidates), values)


def move(connection: Connection, moved: Moves) -> None:
    """Write where rows go."""
    if not moved:
        return
    this = update(t.candidates).where(t.candidates.c.id == bindparam("number"))
    connection.execute(
        this.values(place=bindparam("new_place"), reason=bindparam("new_reason")),
        [
            {"number": number, "new_place": row.place, "new_reason": row.reason}
            for number, (_, row) in moved.items()
        ],
    )


def shares(connection: Connection, kind: str) -> dict[str, int]:
    """How many examples of a kind each user, or each group of users, has a part in.

    Those that are set aside for the share alone are counted too.
    """
    columns = t.candidates.c
    query = (
        select(columns.users, func.count())
        .where(columns.kind == kind, (columns.place == kind) | (columns.reason == OVER_CAP))
        .group_by(columns.users)
    )
    return {row[0]: row[1] for row in connection.execute(query).all()}


def of_users(
    connection: Connection, kind: str, users: Collection[str]
) -> list[tuple[int, Candidate]]:
    """The examples of a kind in which groups of users have a part, in the order they spoke."""
    columns, found = t.candidates.c, []
    for some in _batches(users):
        query = select(t.candidates).where(
            columns.kind == kind,
            (columns.place == kind) | (columns.reason == OVER_CAP),
            columns.users.in_(some),
        )
        found += [(row[0], Candidate(*row[1:])) for row in connection.execute(query).all()]
    return sorted(found, key=lambda each: (each[1].first_event, each[1].key))


def beyond_cap(connection: Connection, kind: str) -> list[tuple[int, Candidate]]:
    """The examples of a kind that are set aside for their users' share."""
    columns = t.candidates.c
    query = select(t.candidates).where(
        columns.kind == kind, columns.place == SET_ASIDE, columns.reason == OVER_CAP
    )
    return [(row[0], Candidate(*row[1:])) for row in connection.execute(query).all()]


def counts(
    connection: Connection, conversation_ids: Collection[str] | None = None
) -> dict[str, dict[str, int]]:
    """How many rows each place has, by reason; of some conversations, or of all."""
    columns = t.candidates.c
    query = select(columns.place, columns.reason, func.count()).group_by(
        columns.place, columns.reason
    )
    if conversation_ids is not None:
        query = query.where(columns.conversation_id.in_(conversation_ids))
    found: dict[str, dict[str, int]] = {}
    for place, reason, count in connection.execute(query).all():
        found.setdefault(place, {})[reason] = count
    return found


def recount(
    before: Mapping[str, Mapping[str, int]],
    gone: Mapping[str, Mapping[str, int]],
    moves: Moves,
    come: Iterable[Candidate] = (),
) -> dict[str, dict[str, int]]:
    """Counts after rows have gone, others have moved, and others have come."""
    after = {place: Counter(reasons) for place, reasons in before.items()}
    for place, reasons in gone.items():
        after[place].subtract(reasons)
    for was, _ in moves.values():
        after[was.place][was.reason] -= 1
    for row in (*(now for _, now in moves.values()), *come):
        after.setdefault(row.place, Counter())[row.reason] += 1
    return {place: dict(+reasons) for place, reasons in sorted(after.items())}


def listed(place: str, reason: str | None = None) -> Select[Any]:
    """The query for the rows of a place, with one reason or any, in the order people spoke."""
    columns = t.candidates.c
    query = query_candidates(columns.place == place)
    if reason is not None:
        query = query.where(columns.reason == reason)
    return query.order_by(columns.first_event, columns.id)


def query_candidates(*where: ColumnElement[bool]) -> Select[Any]:
    """The query for some rows, to be given to `fetch`."""
    columns = (t.candidates.c[name] for name in Candidate.__dataclass_fields__)
    return select(*columns).where(*where)


def fetch(connection: Connection, query: Select[Any]) -> list[Candidate]:
    """The rows of such a query."""
    return [Candidate(*row) for row in connection.execute(query).all()]


def mentioned(words: str) -> ColumnElement[bool]:
    """Rows of conversations in which words were said, whatever the case of their letters.

    SQLite knows the case of ASCII letters alone.
    """
    turns, answers, events, decisions = t.turns.c, t.answers.c, t.events.c, t.decisions.c

    def says(*columns: Any) -> ColumnElement[bool]:
        return or_(*(func.lower(column).contains(words, autoescape=True) for column in columns))

    answered = t.turns.join(t.answers, answers.turn_id == turns.id)
    judged = answered.join(t.events, events.answer_id == answers.id)
    places = (
        select(turns.conversation_id).where(says(turns.question)),
        select(turns.conversation_id)
        .select_from(answered)
        .where(says(answers.text, answers.thought)),
        select(turns.conversation_id).select_from(judged).where(says(events.correction)),
        select(decisions.conversation_id).where(says(decisions.chosen, decisions.rejected)),
    )
    return t.candidates.c.conversation_id.in_(union(*places))


def _values(connection: Connection, wanted: Any, where: Any, among: Collection[Any]) -> set[Any]:
    """The different values of one column in the rows that have certain values in another."""
    found: set[Any] = set()
    for some in _batches(among):
        found.update(connection.execute(select(wanted).where(where.in_(some)).distinct()).scalars())
    return found


def _delete(connection: Connection, where: Any, among: Collection[Any]) -> None:
    for some in _batches(among):
        connection.execute(delete(where.table).where(where.in_(some)))


def _batches(values: Collection[Any]) -> Iterator[list[Any]]:
    ordered = sorted(values)
    for begin in range(0, len(ordered), IDS_A_QUERY):
        yield ordered[begin : begin + IDS_A_QUERY]
