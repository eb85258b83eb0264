"""The verdicts on answers that several users voted on, by the estimated reliability of each user.

Estimated now and then, and kept in the database beside the candidates. The estimate itself is
`trust`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, delete, func, insert, select

from engine.storage import digest_json
from feedback_store.examples.building import trust_in_voters
from feedback_store.examples.trust import SURE, JointVerdict, Trust
from feedback_store.records import CurrentVote
from feedback_store.storage import tables as t
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.stale_conversations import mark_stale
from feedback_store.view.state import read_state, write_state

# The share of shared answers that must be judged otherwise before trust is estimated anew
DUE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class _SharedVerdict:
    """A row: the verdict on an answer that several users voted on."""

    answer_id: str
    conversation_id: str
    votes: str
    up: int
    confidence: float

    @property
    def decides(self) -> tuple[int, bool]:
        """The part of it that examples depend on."""
        return self.up, self.confidence >= SURE


def read_trust(connection: Connection, conversation_ids: Collection[str]) -> Trust:
    """The stored verdicts on answers of conversations, without the reliability of users."""
    rows = _read_verdicts(connection, conversation_ids).values()
    return Trust(
        {row.answer_id: JointVerdict(bool(row.up), row.confidence) for row in rows}, {}, None
    )


def count_changed_votes(
    connection: Connection, conversation_ids: Collection[str], shared: dict[str, str]
) -> int:
    """The number of shared answers that are judged otherwise now than when trust was estimated.

    `shared` has those of the conversations now, each with the digest of its votes.
    """
    then = {
        row.answer_id: row.votes for row in _read_verdicts(connection, conversation_ids).values()
    }
    return len(dict(then.items() ^ shared.items()))


def reestimate_trust(reader: EvidenceReader, *, now: bool) -> bool:
    """Estimate the trust in each user where that is due, or `now`; whether verdicts changed.

    It is due once a tenth of the shared answers is judged otherwise. The conversations in which
    verdicts changed are then stale.
    """
    while True:
        with reader.database.read() as connection:
            state = read_state(connection)
            known = connection.execute(select(func.count()).select_from(t.verdicts)).scalar_one()
        if state.unweighed <= (0 if now else DUE_SHARE * known):
            return False
        shared = [(c, v) for c, v in reader.shared_votes() if v.user_id not in state.refusing]
        trust = trust_in_voters((vote for _, vote in shared), state.refusing)
        rows = _verdicts(shared, trust)
        with reader.database.write() as connection:
            if read_state(connection) != state:
                continue  # another process was faster
            changed = _replace_verdicts(connection, rows)
            mark_stale(connection, changed)
            version = state.version + 1
            write_state(
                connection, replace(state, version=version, unweighed=0, flip_rate=trust.flip_rate)
            )
        return bool(changed)


def shared_votes(votes: Iterable[CurrentVote]) -> dict[str, str]:
    """The answers that several users voted on, each with a digest of their votes."""
    by_answer: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for vote in votes:
        by_answer[vote.answer_id].append((vote.user_id, vote.vote))
    return {
        answer_id: digest_json(sorted(said))
        for answer_id, said in by_answer.items()
        if len(said) > 1
    }


def _verdicts(shared: list[tuple[str, CurrentVote]], trust: Trust) -> dict[str, _SharedVerdict]:
    conversation_of = {vote.answer_id: conversation_id for conversation_id, vote in shared}
    digests = shared_votes(vote for _, vote in shared)
    return {
        answer_id: _SharedVerdict(
            answer_id,
            conversation_of[answer_id],
            digests[answer_id],
            int(verdict.up),
            verdict.confidence,
        )
        for answer_id, verdict in trust.verdicts.items()
    }


def _replace_verdicts(connection: Connection, rows: dict[str, _SharedVerdict]) -> set[str]:
    """Replace all verdicts; returns the conversations in which they decide otherwise."""
    before = _read_verdicts(connection)
    connection.execute(delete(t.verdicts))
    if rows:
        connection.execute(insert(t.verdicts), [t.row_of(row) for row in rows.values()])
    return {
        row.conversation_id
        for answer_id in before.keys() | rows.keys()
        for row in (before.get(answer_id), rows.get(answer_id))
        if row is not None and _decides(before, answer_id) != _decides(rows, answer_id)
    }


def _decides(rows: dict[str, _SharedVerdict], answer_id: str) -> tuple[int, bool] | None:
    return rows[answer_id].decides if answer_id in rows else None


def _read_verdicts(
    connection: Connection, conversation_ids: Collection[str] | None = None
) -> dict[str, _SharedVerdict]:
    query = select(*(t.verdicts.c[name] for name in _SharedVerdict.__dataclass_fields__))
    if conversation_ids is not None:
        query = query.where(t.verdicts.c.conversation_id.in_(conversation_ids))
    return {row[0]: _SharedVerdict(*row) for row in connection.execute(query).all()}
