"""Answers to one prompt that nobody judged: what an AI judge may compare in people's place.

Reads only. A person's word always counts more: where anybody said anything of any answer to a turn,
the turn is not looked at, but for the alternatives that the engine wrote to a bad answer, as long
as nobody has judged one of them. Knows tables; knows no judge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sqlalchemy import Connection, Row, func, select

from engine.messages import Message
from feedback_store.examples.rules import DEFAULT_RULES, USABLE, Rules
from feedback_store.examples.split import split_of
from feedback_store.examples.text_comparison import read_the_same
from feedback_store.examples.types import Redact, Side, redacted_prompt
from feedback_store.records import WrittenAnswer
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, batches
from feedback_store.storage.evidence import answer_columns
from feedback_store.storage.statements import current_statements, read_judgements
from feedback_store.storage.store import FeedbackStore


@dataclass(frozen=True, slots=True)
class Siblings:
    """The usable answers to one turn, the oldest first."""

    prompt: tuple[Message, ...]
    answers: tuple[Side, ...]
    conversation_id: str
    template_hash: str
    user_id: str  # who asked

    def couples(self) -> list[tuple[Side, Side]]:
        """Each answer with the next that reads differently: n - 1 comparisons for n answers."""
        return [both for both in pairwise(self.answers) if not read_the_same(*both)]


def unjudged_siblings(
    database: Database,
    store: FeedbackStore,
    rules: Rules = DEFAULT_RULES,
    *,
    redact: Redact | None = None,
) -> Iterator[Siblings]:
    """Turns on the training side with several answers and no word of anybody about any of them.

    Of a turn with a bad answer, its alternatives. Left out: people who refuse, answers that are
    unfinished, blank or too long (`rules`), turns whose answers all read the same. Regenerations
    and copies are no judgements. `redact` is applied to every text.
    """
    with database.read() as connection:
        turns = _turns_with_several(connection)
        judged, alternatives = _judged_answers(connection, [each.id for each in turns])
    for turn in turns:
        if turn.user_id in rules.refusing_users or split_of(turn.conversation_id) != "train":
            continue
        answers = [a for a in _answers(database, turn.id) if rules.answer_problem(a) is None]
        if turn.id in judged:
            answers = [answer for answer in answers if answer.id in alternatives]
            if judged[turn.id] & {answer.id for answer in answers}:
                continue
        if len(answers) < 2:
            continue
        _, prompt = store.shown_prompt(answers[0].id, turn.user_id)
        siblings = Siblings(
            prompt,
            tuple(map(Side.of, answers)),
            turn.conversation_id,
            turn.template_hash,
            turn.user_id,
        )
        if redact is not None:
            siblings = _redacted(siblings, redact)
        if siblings.couples():
            yield siblings


def _turns_with_several(connection: Connection) -> list[Row[str, str, str, str]]:
    """The turns with several ended answers, in the order asked."""
    turn = t.turns.c
    with_siblings = (
        select(t.answers.c.turn_id)
        .where(t.answers.c.status.in_(USABLE))
        .group_by(t.answers.c.turn_id)
        .having(func.count() > 1)
    )
    query = (
        select(turn.id, turn.conversation_id, turn.template_hash, turn.user_id)
        .where(turn.id.in_(with_siblings))
        .order_by(turn.created_at, turn.id)
    )
    return list(connection.execute(query).all())


def _judged_answers(
    connection: Connection, turn_ids: Sequence[str]
) -> tuple[dict[str, set[str]], set[str]]:
    """The answers of each turn that anybody says anything about; and all alternatives."""
    judged: dict[str, set[str]] = defaultdict(set)
    for some in batches(turn_ids):
        for event in current_statements(read_judgements(connection, t.turns.c.id.in_(some))):
            if event["kind"] == "choice":
                judged[event["turn_id"]] |= {event["left_answer_id"], event["right_answer_id"]}
            elif event["kind"] != "vote" or event["vote"]:
                judged[event["turn_id"]].add(event["answer_id"])
    alternatives = connection.execute(select(t.alternatives.c.answer_id)).scalars()
    return judged, set(alternatives)


def _answers(database: Database, turn_id: str) -> list[WrittenAnswer]:
    query = (
        select(*answer_columns(WrittenAnswer))
        .where(t.answers.c.turn_id == turn_id)
        .order_by(t.answers.c.created_at, t.answers.c.id)
    )
    with database.read() as connection:
        return [WrittenAnswer(*row) for row in connection.execute(query)]


def _redacted(siblings: Siblings, redact: Redact) -> Siblings:
    return replace(
        siblings,
        prompt=redacted_prompt(siblings.prompt, redact),
        answers=tuple(side.redacted(redact) for side in siblings.answers),
    )
