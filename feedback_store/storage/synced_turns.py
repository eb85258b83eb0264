"""Statements of people on another chat page, kept in step with what they say there now.

An answer that this server made for that page is recognised by a digest of its shown text, so that
the statement is about the answer itself, with its release and its prompt as the model was shown it.
Any other answer is stored as an imported one, under an id made of its name. A statement is stored
where it differs from the one stored before: so the same state twice says nothing new. Knows tables
and value types; knows no file formats and no network.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, insert, select

from engine.messages import clean_text
from engine.prompts.modes import PromptTemplate
from engine.storage import digest_json
from engine.units import DAY_SECONDS
from feedback_store.examples.rules import USABLE
from feedback_store.examples.types import IMPORTED
from feedback_store.records import ImportedAnswer, ImportedVote, SyncedTurn
from feedback_store.storage import tables as t
from feedback_store.storage.database import insert_once
from feedback_store.storage.events import event_values
from feedback_store.storage.import_writer import (
    MAX_USER_ID_CHARS,
    MOMENT_SECONDS,
    answer_row,
    turn_row,
)
from feedback_store.storage.imported_conversations import NewTurn
from feedback_store.storage.statements import read_own_statements

CLOCKS_DIFFER_SECONDS = DAY_SECONDS  # the other page's clock may be wrong, or its day another
# So long a text is hardly written twice; a shorter one is recognised under its question alone
TELLING_CHARS = 40
SyncKind = Literal["turns", "on_policy", "votes", "corrections", "comparisons", "taken_back"]


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """An answer that this server made for a program, and where it stands."""

    id: str
    turn_id: str
    conversation_id: str
    question: str
    at: float


def sync_turns(
    connection: Connection, turns: Iterable[SyncedTurn], template: PromptTemplate
) -> Counter[SyncKind]:
    """Store what is new in turns of another page.

    Returns the number of turns, of those whose answer this server made, and of new statements.
    """
    every = list(turns)
    shown = _ShownAnswers(connection, every)
    counts: Counter[SyncKind] = Counter()
    for each in every:
        counts.update(_Synced(connection, each, shown, template).store())
    return counts


class _ShownAnswers:
    """The answers that this server made for programs and that may be meant, by a digest of their
    text. What people were answered on the page of this server is not among them."""

    def __init__(self, connection: Connection, synced: Iterable[SyncedTurn]) -> None:
        every = list(synced)
        since = min((each.at for each in every), default=0.0)
        meant = {_digest(answer.text) for each in every for answer in each.turn.answers}
        answers, turns = t.answers.c, t.turns.c
        query = (
            select(
                answers.id,
                answers.turn_id,
                turns.conversation_id,
                turns.question,
                answers.created_at,
                answers.text,
            )
            .join(t.turns, turns.id == answers.turn_id)
            .outerjoin(t.conversations, t.conversations.c.id == turns.conversation_id)
            .where(
                t.conversations.c.id.is_(None),
                turns.created_at >= since - CLOCKS_DIFFER_SECONDS,
                answers.base_digest != IMPORTED,
                answers.status.in_(USABLE),
            )
        )
        self._found: dict[bytes, list[ShownAnswer]] = defaultdict(list)
        for *known, text in connection.execute(query):
            if (digest := _digest(text)) in meant:
                self._found[digest].append(ShownAnswer(*known))

    def find(self, text: str, question: str, at: float) -> ShownAnswer | None:
        """The answer with that text to that question; of several the one nearest in time."""
        found = self._found.get(_digest(text), [])
        fitting = [each for each in found if each.question.strip() == question.strip()]
        if not fitting and len(text.strip()) >= TELLING_CHARS:
            fitting = found  # the other page may have put documents around the question
        return min(fitting, key=lambda each: abs(each.at - at), default=None)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.strip().encode(), digest_size=16).digest()


class _Synced:
    """One turn on its way into rows."""

    def __init__(
        self,
        connection: Connection,
        synced: SyncedTurn,
        shown: _ShownAnswers,
        template: PromptTemplate,
    ) -> None:
        self._connection = connection
        self._synced = synced
        self._shown = shown
        self._template = template
        self._user = clean_text(synced.user, what="user's id", limit_chars=MAX_USER_ID_CHARS)
        self._counts: Counter[SyncKind] = Counter({"turns": 1})

    def store(self) -> Counter[SyncKind]:
        """Find or store the answers, then store what differs from what was said."""
        first, *siblings = self._synced.turn.answers
        made = self._find(first)
        if made is None:
            answer_ids, turn_id, conversation_id = self._store_imported()
        else:
            self._counts["on_policy"] += 1
            turn_id, conversation_id = made.turn_id, made.conversation_id
            beside = [self._beside(made, place) for place in range(1, len(siblings) + 1)]
            answer_ids = [made.id, *beside]
        said = read_own_statements(self._connection, answer_ids[0], conversation_id, self._user)
        self._sync_vote(answer_ids[0], said)
        self._sync_correction(answer_ids[0], said)
        self._sync_choices(answer_ids, turn_id, said)
        return self._counts

    def _find(self, answer: ImportedAnswer) -> ShownAnswer | None:
        question = self._synced.turn.prompt[-1].content
        return self._shown.find(answer.text, question, self._synced.at)

    def _store_imported(self) -> tuple[list[str], str, str]:
        """Store the turn as an imported one of this person, unless it is there."""
        synced = self._synced
        new = NewTurn(synced.turn, synced.at, _id_of("turn", synced.answer_names[0]))
        new.answer_ids = [_id_of("answer", name) for name in synced.answer_names]
        insert_once(self._connection, t.turns, turn_row(new, self._template, self._user))
        for place, answer in enumerate(synced.turn.answers):
            self._store_answer(answer, new.answer_ids[place], new.id, place)
        return new.answer_ids, new.id, new.conversation_id

    def _beside(self, made: ShownAnswer, place: int) -> str:
        """The id of a sibling of an answer that was made here; stored if it was made elsewhere."""
        answer = self._synced.turn.answers[place]
        found = self._find(answer)
        if found is not None and found.conversation_id == made.conversation_id:
            return found.id
        answer_id = _id_of("answer", self._synced.answer_names[place])
        self._store_answer(answer, answer_id, made.turn_id, place)
        return answer_id

    def _store_answer(
        self, answer: ImportedAnswer, answer_id: str, turn_id: str, place: int
    ) -> None:
        at = self._synced.at + MOMENT_SECONDS * (1 + place)
        insert_once(self._connection, t.answers, answer_row(answer, answer_id, turn_id, at))

    def _sync_vote(self, answer_id: str, said: Iterable[RowMapping]) -> None:
        if "vote" not in self._synced.told:
            return
        before = next((each for each in said if each["kind"] == "vote"), None)
        (vote,) = self._synced.turn.answers[0].votes or (None,)
        if _words_of(before) == _words_of_vote(vote):
            return
        self._counts["votes" if vote else "taken_back"] += 1
        self._say(
            "vote",
            answer_id=answer_id,
            vote=vote.vote if vote else 0,
            reasons=(list(vote.reasons) or None) if vote else None,
            comment=(vote.comment or None) if vote else None,
        )

    def _sync_correction(self, answer_id: str, said: Iterable[RowMapping]) -> None:
        if "correction" not in self._synced.told:
            return
        before = next((each["correction"] for each in said if each["kind"] == "correction"), "")
        words = next((text for _, text in self._synced.turn.answers[0].corrections), "")
        if words != before:
            self._counts["corrections" if words else "taken_back"] += 1
            self._say("correction", answer_id=answer_id, correction=words)

    def _sync_choices(
        self, answer_ids: list[str], turn_id: str, said: Iterable[RowMapping]
    ) -> None:
        if "choice" not in self._synced.told:
            return
        before = {
            each["comparison_id"]: each["choice"] for each in said if each["kind"] == "choice"
        }
        wanted = {}
        for choice in self._synced.turn.choices:
            left, right = answer_ids[choice.left], answer_ids[choice.right]
            if left != right:  # the same words twice
                wanted[self._comparison(turn_id, left, right)] = choice.choice
        for comparison_id, chosen in wanted.items():
            if before.get(comparison_id) != chosen:
                self._counts["comparisons"] += 1
                self._say("choice", comparison_id=comparison_id, choice=chosen)
        for comparison_id in before.keys() - wanted.keys():
            if before[comparison_id] == "left":
                self._counts["taken_back"] += 1
                self._say("choice", comparison_id=comparison_id, choice="tie")

    def _comparison(self, turn_id: str, left: str, right: str) -> str:
        """The one comparison of this person between two answers."""
        row = {
            "id": _id_of("comparison", f"{self._user}/{left}/{right}"),
            "turn_id": turn_id,
            "left_answer_id": left,
            "right_answer_id": right,
            "user_id": self._user,
            "created_at": self._synced.at,
        }
        insert_once(self._connection, t.comparisons, row)
        return str(row["id"])

    def _say(self, kind: str, **said: Any) -> None:
        about = {"answer_id": None, "comparison_id": None}
        values = {**about, **event_values(kind, self._user, None, **said)}
        self._connection.execute(insert(t.events).values(values))


def _words_of(event: RowMapping | None) -> tuple[int, list[str], str]:
    """The words of a stored vote; one that was taken back has none."""
    if event is None or not event["vote"]:
        return 0, [], ""
    return event["vote"], list(event["reasons"] or ()), event["comment"] or ""


def _words_of_vote(vote: ImportedVote | None) -> tuple[int, list[str], str]:
    return (vote.vote, list(vote.reasons), vote.comment) if vote else (0, [], "")


def _id_of(kind: str, name: str) -> str:
    """An id of the other page's names: the same each time."""
    return digest_json(["synced", kind, name])[-32:]
