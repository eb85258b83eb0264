"""Taking a snapshot: the examples of now, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.storage import list_digests
from feedback_store.curation.decisions import Curation
from feedback_store.privacy.erasure import forget_user
from feedback_store.privacy.redaction import Redactor
from feedback_store.snapshots.snapshot import freeze, open_snapshot
from feedback_store.snapshots.taking import take_snapshot
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations

TRAIN, HELDOUT = "c0", "c23"  # see `SIDES` in test_snapshot


@pytest.fixture
def url(sqlite: str) -> str:
    return sqlite


def test_a_snapshot_is_redacted_and_knows_its_gold_and_its_last_event(
    store: FeedbackStore,
    talk: Conversations,
    training_set: TrainingSet,
    curation: Curation,
    tmp_path: Path,
) -> None:
    for conversation in (TRAIN, HELDOUT):
        answer = talk.ask(f"Who, {conversation}?", "Somebody.", conversation=conversation)
        store.correct(answer, "ann", "Write to ann@example.org.")
    curation.mark_gold(HELDOUT)
    digest = take_snapshot(tmp_path, training_set, curation, redact=Redactor().redact)
    snapshot = open_snapshot(tmp_path, digest)
    assert [pair.chosen.text for pair in snapshot.train.pairs] == ["Write to <EMAIL>."]
    assert (len(snapshot.heldout.pairs), len(snapshot.gold.pairs)) == (0, 1)
    assert (snapshot.manifest["last_event"], snapshot.manifest["redacted"]) == (2, True)


def test_whoever_is_forgotten_while_a_snapshot_is_made_is_not_in_it(
    store: FeedbackStore,
    talk: Conversations,
    training_set: TrainingSet,
    curation: Curation,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for user, conversation in (("ann", TRAIN), ("bob", "c13")):
        answer = talk.ask(text=f"A lef, {user}.", user=user, conversation=conversation)
        store.correct(answer, user, f"A leaf, {user}.")
    made: list[str] = []

    def freeze_slowly(*given: Any, **named: Any) -> str:
        made.append(freeze(*given, **named))
        if len(made) == 1:
            forget_user(database, "bob")
        return made[-1]

    monkeypatch.setattr("feedback_store.snapshots.taking.freeze", freeze_slowly)
    root = tmp_path / "snapshots"
    snapshot = open_snapshot(root, take_snapshot(root, training_set, curation))
    assert [pair.origin.user_ids for pair in snapshot.train.pairs] == [("ann",)]
    assert list_digests(root) == [snapshot.digest]


def test_nothing_to_train_on_is_said_with_the_remedy(
    store: FeedbackStore, training_set: TrainingSet, curation: Curation, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="nothing to train on yet: correct an answer"):
        take_snapshot(tmp_path, training_set, curation)
