"""Faults that once got through: each must stay mended."""

from __future__ import annotations

from pathlib import Path

from engine.messages import Message
from feedback_store.formats import export_examples, import_file
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn
from feedback_store.snapshots.snapshot import freeze, open_snapshot
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import PLAIN, Conversations
from tests.feedback_store.helpers import examples_now


def test_two_people_may_use_the_same_idempotency_key(
    store: FeedbackStore, talk: Conversations
) -> None:
    for user in ("ann", "bob"):
        store.vote(talk.ask(user=user, conversation=user), user, 1, idempotency_key="1")
    assert store.counts()["votes_up"] == 2


def test_a_nul_that_a_model_wrote_spoils_no_snapshot(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet, tmp_path: Path
) -> None:
    store.correct(talk.ask(text="Be\x00cause.", conversation="c0"), "ann", "Because.")
    digest = freeze(
        tmp_path / "snapshots", examples_now(training_set, reestimate=True), last_event=1
    )
    (pair,) = open_snapshot(tmp_path / "snapshots", digest).train.pairs
    assert pair.rejected.text == "Be\ufffdcause."


def test_a_cut_off_side_stays_cut_off_through_export_and_import(
    store: FeedbackStore, training_set: TrainingSet, tmp_path: Path
) -> None:
    answers = ImportedAnswer("Because."), ImportedAnswer("Because it", complete=False)
    choice = ImportedChoice("ann", 0, 1, "left")
    turn = ImportedTurn((Message("user", "Why?"),), answers, (choice,))
    store.add_imported([turn], PLAIN, "ann")
    exported = tmp_path / "pairs.jsonl"
    export_examples(examples_now(training_set).pairs, exported, format="trl")
    exported.write_text(exported.read_text("utf-8").replace("Why?", "How?"), "utf-8")
    import_file(store, exported)
    pairs = examples_now(training_set).pairs
    assert [pair.prompt[-1].content for pair in pairs] == ["Why?", "How?"]
    assert [(p.chosen.complete, p.rejected.complete) for p in pairs] == [(True, False)] * 2
