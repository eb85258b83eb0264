"""Faults that once got through: each must stay mended."""

from __future__ import annotations

from pathlib import Path

from engine.messages import Message
from engine.prompts.modes import make_template
from feedback_store.formats import export_preferences, import_preferences
from feedback_store.pairing import build_pairs
from feedback_store.records import JudgedPair
from feedback_store.snapshot import freeze, open_snapshot
from feedback_store.store import FeedbackStore

PLAIN = make_template("plain", ())


def answered(store: FeedbackStore, user: str, text: str) -> str:
    turn = store.add_turn(
        user_id=user, question="Why?", template=PLAIN, conversation_id=f"conversation-{user}"
    )
    answer = store.begin_answer(
        turn.id, base_digest="base", adapter_digest=None, sampling={}, seed=0
    )
    store.finish_answer(answer, status="done", text=text, complete=True)
    return answer


def test_two_people_may_use_the_same_idempotency_key(store: FeedbackStore) -> None:
    for user in ("ann", "bob"):
        store.vote(answered(store, user, "Because."), user, 1, idempotency_key="1")
    assert store.counts()["votes_up"] == 2


def test_a_nul_that_a_model_wrote_spoils_no_snapshot(store: FeedbackStore, tmp_path: Path) -> None:
    for number in range(12):
        user = f"user-{number}"
        store.correct(answered(store, user, "Be\x00cause."), user, "Because.")
    digest = freeze(tmp_path, build_pairs(store.evidence()), last_event_count=12)
    assert open_snapshot(tmp_path, digest).train[0].rejected == "Be\ufffdcause."


def test_a_cut_off_side_stays_cut_off_through_export_and_import(
    store: FeedbackStore, tmp_path: Path
) -> None:
    pair = JudgedPair((Message("user", "Why?"),), "Because.", "Because it", worse_complete=False)
    store.add_judged_pairs([pair], PLAIN, "ann")
    export_preferences(build_pairs(store.evidence()).pairs, tmp_path / "pairs.jsonl")
    text = (tmp_path / "pairs.jsonl").read_text().replace("Why?", "How?")
    (tmp_path / "again.jsonl").write_text(text)
    import_preferences(store, tmp_path / "again.jsonl")
    assert [p.rejected_complete for p in build_pairs(store.evidence()).pairs] == [False, False]
