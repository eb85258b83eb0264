"""Somebody who votes ten thousand times does not outvote the others (docs/faults.md, row 24)."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import update

from engine.messages import Message
from feedback_store.curation.decisions import Curation
from feedback_store.examples.rules import Rules
from feedback_store.records import ImportedAnswer, ImportedTurn, ImportedVote
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.helpers import examples_now


@pytest.fixture
def url(sqlite: str) -> str:
    return sqlite


def pair_of(user: str, number: int) -> ImportedTurn:
    """Two votes that make a pair."""
    return ImportedTurn(
        (Message("user", f"Question {number} of {user}?"),),
        (
            ImportedAnswer(f"Yes, {number}.", votes=(ImportedVote(user, 1),)),
            ImportedAnswer(f"No, {number}.", votes=(ImportedVote(user, -1),)),
        ),
    )


@pytest.mark.integration
def test_ten_thousand_votes_of_one_user_are_a_fifth_of_what_is_trained_on(
    store: FeedbackStore, database: Database
) -> None:
    honest = [pair_of(f"user-{user}", number) for user in range(10) for number in range(10)]
    flood = [pair_of("eve", number) for number in range(5_000)]
    store.add_imported([*honest, *flood], PLAIN, "import")
    with database.write() as connection:  # as if all had been said here, which takes a minute
        connection.execute(update(tables.answers).values(base_digest="sha256:base"))
    rules = Rules(user_share=0.2, user_floor=0)
    training_set = TrainingSet(EvidenceReader(database), Curation(database), rules)
    examples = examples_now(training_set)
    pairs = Counter(user for pair in examples.pairs for user in pair.origin.user_ids)
    # Of the others' 100 pairs none is lost; 25 is a fifth of 100 + 25
    assert pairs == {**{f"user-{user}": 10 for user in range(10)}, "eve": 25}
    liked = Counter(user for each in examples.demonstrations for user in each.origin.user_ids)
    assert liked["eve"] == 25
    assert examples.set_aside_counts == {"user over their cap": 2 * (5_000 - 25)}


@pytest.mark.integration
def test_ten_thousand_votes_on_one_answer_are_one(store: FeedbackStore, database: Database) -> None:
    votes = tuple(ImportedVote("eve", 1 if turn % 2 else -1) for turn in range(10_000))
    other = ImportedAnswer("That.", votes=(ImportedVote("eve", -1),))
    turn = ImportedTurn((Message("user", "Which?"),), (ImportedAnswer("This.", votes=votes), other))
    store.add_imported([turn], PLAIN, "import")
    assert (store.event_count(), store.counts()["votes"]) == (10_001, 2)
    examples = examples_now(TrainingSet(EvidenceReader(database), Curation(database)))
    (pair,) = examples.pairs
    assert (pair.chosen.text, pair.rejected.text, len(pair.origin.event_ids)) == (
        "This.",
        "That.",
        2,
    )
