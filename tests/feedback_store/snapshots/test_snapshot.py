"""A snapshot is frozen training data: the same for the same examples."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from engine.storage import folder_of, list_digests
from feedback_store.curation.decisions import Curation
from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.split import SPLITS, split_of
from feedback_store.examples.types import Examples, Pair, SetAside
from feedback_store.snapshots.snapshot import Snapshot, diff, freeze, open_snapshot, rewrite
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import examples_now, reply, said, voted_pair
from tests.feedback_store.snapshots.made import frozen

# First 16 hexadecimal digits of `printf burnish-split/1:c0 | sha256sum`; below 3333... is held out
SIDES = {
    "c0": "train",  # 8a6ebf1de0f7dff7
    "c13": "train",  # 3537e6b32dcb3e20
    "c23": "heldout",  # 1fd0a25661a7abb4
    "c29": "train",  # c3c64cbbe3d70972
}


def rows(root: Path, digest: str, kind: str = "pairs") -> dict[str, list[dict[str, Any]]]:
    """The rows of each split."""
    folder = folder_of(root, digest)
    return {
        split: [json.loads(line) for line in (folder / split / f"{kind}.jsonl").open("rb")]
        for split in SPLITS
    }


def all_kinds(conversation: str) -> Examples:
    """Examples of each kind, with something set aside."""
    result = build_prompt_examples(
        said(
            *(reply(name, f"{name} of {conversation}") for name in ("a", "b", "c", "d")),
            votes=[(1, "a", "ann", 1), (2, "b", "ann", -1)],
            choices=[(3, "c", "d", "ann", "both_bad")],
            conversation=conversation,
        )
    )
    return Examples(
        result.pairs,
        result.unpaired,
        result.demonstrations,
        [SetAside("contested", conversation, ("e",), (4,), ("ann",))],
    )


def test_a_snapshot_gives_back_its_pairs_on_their_sides(tmp_path: Path) -> None:
    snapshot = open_snapshot(tmp_path, frozen(tmp_path, ["c0", "c23", "c13"]))
    assert snapshot.train.pairs == (voted_pair("c0"), voted_pair("c13"))
    assert snapshot.heldout.pairs == (voted_pair("c23"),)
    assert list(snapshot.gold.examples) == []
    assert snapshot.manifest["format"] == "burnish-snapshot/3"
    assert snapshot.manifest["counts"] == {
        "train": {"pairs": 2, "unpaired": 0, "demonstrations": 0},
        "heldout": {"pairs": 1, "unpaired": 0, "demonstrations": 0},
        "gold": {"pairs": 0, "unpaired": 0, "demonstrations": 0},
    }
    assert snapshot.manifest["sources"] == {"pairs/votes": 3}
    assert snapshot.manifest["last_event"] == 9


def test_a_snapshot_gives_back_examples_of_every_kind(tmp_path: Path) -> None:
    examples = all_kinds("c0")
    snapshot = open_snapshot(tmp_path, freeze(tmp_path, examples, last_event=4))
    assert list(snapshot.train.examples) == examples.every
    assert [len(examples.of_kind(kind)) for kind in ("pairs", "unpaired", "demonstrations")] == [
        1,
        2,
        1,
    ]
    assert snapshot.manifest["sources"] == {
        "demonstrations/vote": 1,
        "pairs/votes": 1,
        "unpaired/comparison": 2,
    }
    assert snapshot.manifest["set_aside"] == {"contested": 1}


def test_the_same_examples_make_the_same_digest_anywhere(tmp_path: Path) -> None:
    one = frozen(tmp_path / "one", ["c0", "c23"])
    assert frozen(tmp_path / "two", ["c0", "c23"]) == one
    assert frozen(tmp_path / "two", ["c0", "c13"]) != one


def test_the_same_evidence_makes_the_same_snapshot(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet, tmp_path: Path
) -> None:
    for number in range(5):
        answer_id = talk.ask(f"Q{number}", conversation=f"c{number}")
        store.correct(answer_id, "ann", f"Better {number}.")

    def freeze_now() -> str:
        training_set.refresh(reestimate=True)
        selected, examples = training_set.load_examples()
        return freeze(tmp_path / "snapshots", examples, last_event=selected.last_event)

    first = freeze_now()
    talk.ask("a turn without feedback", conversation="c0")
    assert freeze_now() == first
    assert len(open_snapshot(tmp_path / "snapshots", first).train.pairs) == 5


def test_what_training_needs_to_know_is_recorded(tmp_path: Path) -> None:
    plain = open_snapshot(tmp_path, frozen(tmp_path, ["c0"])).manifest
    assert (plain["thoughts_in_loss"], plain["flip_rate"], plain["redacted"]) == (True, None, False)
    digest = frozen(
        tmp_path, ["c0"], thoughts_in_loss=False, flip_rate=0.125, redact=lambda text: text
    )
    told = open_snapshot(tmp_path, digest).manifest
    assert (told["thoughts_in_loss"], told["flip_rate"], told["redacted"]) == (False, 0.125, True)


def test_a_line_is_one_canonical_json_object_whatever_is_in_the_text(tmp_path: Path) -> None:
    text = '好\u2028\x85 \\ " \r\n <|im_end|> 🙂'
    digest = freeze(tmp_path, Examples(pairs=[voted_pair("c0", text)]), last_event=2)
    data = (folder_of(tmp_path, digest) / "train" / "pairs.jsonl").read_bytes()
    assert data.count(b"\n") == 1
    assert open_snapshot(tmp_path, digest).train.pairs[0].chosen.text == text


# The split


@pytest.mark.parametrize(("conversation", "side"), SIDES.items())
def test_a_conversation_stays_on_its_side_in_every_version(conversation: str, side: str) -> None:
    assert split_of(conversation) == side


def test_new_data_never_moves_an_old_conversation(tmp_path: Path) -> None:
    old, new = [f"old-{i}" for i in range(50)], [f"new-{i}" for i in range(200)]

    def sides(digest: str) -> dict[str, str]:
        return {
            row["conversation_id"]: split
            for split, found in rows(tmp_path, digest).items()
            for row in found
        }

    before, after = sides(frozen(tmp_path, old)), sides(frozen(tmp_path, new + old))
    assert set(before.values()) == {"train", "heldout"}
    assert {conversation: after[conversation] for conversation in old} == before


def test_all_pairs_of_a_conversation_are_on_one_side(tmp_path: Path) -> None:
    pairs = [voted_pair("c23", f"Good {i}", event=i) for i in range(5)] + [voted_pair("c0")]
    digest = freeze(tmp_path, Examples(pairs=pairs), last_event=0)
    assert [len(found) for found in rows(tmp_path, digest).values()] == [1, 5, 0]


def test_about_a_fifth_is_held_out() -> None:
    held = sum(split_of(f"conversation-{i}") == "heldout" for i in range(10_000))
    assert 1_840 <= held <= 2_160  # four standard deviations of 40


def test_gold_is_made_of_held_out_conversations_alone(tmp_path: Path) -> None:
    """One that was ever trained on can prove nothing, however it is marked."""
    digest = frozen(tmp_path, ["c0", "c23"], gold=frozenset({"c0", "c23"}))
    snapshot = open_snapshot(tmp_path, digest)
    assert [len(split.pairs) for split in (snapshot.train, snapshot.heldout, snapshot.gold)] == [
        1,
        0,
        1,
    ]
    assert snapshot.gold.pairs[0].origin.conversation_id == "c23"
    assert snapshot.manifest["gold"] == ["c23"]


def test_a_conversation_that_the_operator_marked_becomes_gold(
    store: FeedbackStore,
    talk: Conversations,
    training_set: TrainingSet,
    curation: Curation,
    tmp_path: Path,
) -> None:
    for conversation in ("c0", "c23"):
        store.correct(talk.ask(conversation=conversation), "ann", f"Better {conversation}.")
    curation.mark_gold("c23")
    examples = examples_now(training_set, reestimate=True)
    digest = freeze(tmp_path / "snapshots", examples, last_event=2, gold=curation.gold())
    assert [len(found) for found in rows(tmp_path / "snapshots", digest).values()] == [1, 0, 1]


# Redaction


def test_redaction_reaches_every_text_and_moves_nothing(tmp_path: Path) -> None:
    pair = voted_pair("c0", "Call 555.", "Never 555.")
    pair = replace(
        pair,
        prompt=(Message("user", "Is it 555?"),),
        chosen=replace(pair.chosen, thought="Of 555."),
        rejected=replace(pair.rejected, thought="Or 555."),
    )
    digest = freeze(
        tmp_path,
        Examples(pairs=[pair]),
        last_event=2,
        redact=lambda text: text.replace("555", "<PHONE>"),
    )
    (kept,) = open_snapshot(tmp_path, digest).train.pairs
    assert kept.prompt == (Message("user", "Is it <PHONE>?"),)
    assert (kept.chosen.thought, kept.chosen.text) == ("Of <PHONE>.", "Call <PHONE>.")
    assert (kept.rejected.thought, kept.rejected.text) == ("Or <PHONE>.", "Never <PHONE>.")
    assert (kept.id, kept.origin, kept.rejected.adapter) == (
        pair.id,
        pair.origin,
        pair.rejected.adapter,
    )


def test_redaction_reaches_lone_judgements_and_demonstrations(tmp_path: Path) -> None:
    digest = freeze(tmp_path, all_kinds("c0"), last_event=4, redact=lambda text: text.upper())
    for example in open_snapshot(tmp_path, digest).train.examples:
        for text in (example.prompt[0].content, *(side.text for side in example.sides)):
            assert text == text.upper() != text.lower()


def test_a_pair_that_redaction_makes_alike_is_set_aside(tmp_path: Path) -> None:
    pairs = [voted_pair("c0"), voted_pair("c13", "Call 1.", "Call 2.")]
    digest = freeze(
        tmp_path,
        Examples(pairs=pairs),
        last_event=2,
        redact=lambda text: text.replace("1", "<PHONE>").replace("2", "<PHONE>"),
    )
    snapshot = open_snapshot(tmp_path, digest)
    assert [pair.origin.conversation_id for pair in snapshot.train.pairs] == ["c0"]
    assert snapshot.manifest["set_aside"] == {"identical after redaction": 1}


# Without somebody


def opened(root: Path, conversations: Iterable[str]) -> Snapshot:
    return open_snapshot(root, frozen(root, conversations))


def test_a_rewritten_snapshot_holds_what_may_stay_and_verifies(tmp_path: Path) -> None:
    old = opened(tmp_path, ["c0", "c13", "c23"])
    digest = rewrite(tmp_path, old, lambda example: example.origin.conversation_id != "c13")
    assert digest is not None
    new = open_snapshot(tmp_path, digest)
    assert (new.train.pairs, new.heldout.pairs) == ((voted_pair("c0"),), old.heldout.pairs)
    assert new.manifest["counts"]["train"]["pairs"] == 1
    assert new.manifest["last_event"] == 9


def test_a_snapshot_rewritten_with_all_it_has_is_the_same(tmp_path: Path) -> None:
    old = opened(tmp_path, ["c0", "c23"])
    assert rewrite(tmp_path, old, lambda example: True) == old.digest


def test_a_rewritten_snapshot_names_no_gold_conversation_that_had_to_go(tmp_path: Path) -> None:
    gold = frozenset(f"conversation-{i}" for i in range(100)) | {"c23"}
    old = open_snapshot(tmp_path, frozen(tmp_path, ["c0", *gold], gold=gold))
    assert "c23" in old.manifest["gold"]
    digest = rewrite(tmp_path, old, lambda example: example.origin.conversation_id != "c23")
    assert digest is not None
    new = open_snapshot(tmp_path, digest)
    assert new.manifest["gold"] == [name for name in old.manifest["gold"] if name != "c23"]


def test_a_snapshot_of_which_nothing_to_train_on_is_left_has_no_successor(tmp_path: Path) -> None:
    old = opened(tmp_path, ["c0", "c23"])
    kept = rewrite(tmp_path, old, lambda example: example.origin.conversation_id == "c23")
    assert kept is None
    assert list_digests(tmp_path) == [old.digest]


# Differences


def test_two_snapshots_tell_what_came_went_and_changed(tmp_path: Path) -> None:
    stays, goes, comes = voted_pair("c0"), voted_pair("c13"), voted_pair("c29")
    changes = voted_pair("c23", "One.")
    edited = replace(changes, chosen=replace(changes.chosen, text="Two."))

    def snapshot(*pairs: Pair) -> Snapshot:
        digest = freeze(tmp_path, Examples(pairs=list(pairs)), last_event=9)
        return open_snapshot(tmp_path, digest)

    found = diff(snapshot(stays, goes, changes), snapshot(stays, edited, comes))
    assert found.added["train/pairs"] == (comes.id,)
    assert found.removed["train/pairs"] == (goes.id,)
    assert found.changed["heldout/pairs"] == (changes.id,)
    counted = [
        len(ids) for part in (found.added, found.removed, found.changed) for ids in part.values()
    ]
    assert (sum(counted), len(counted)) == (3, 27)  # nothing else in 3 splits of 3 kinds


def test_a_snapshot_does_not_differ_from_itself(tmp_path: Path) -> None:
    same = opened(tmp_path, ["c0", "c23"])
    found = diff(same, same)
    assert not any(
        ids for part in (found.added, found.removed, found.changed) for ids in part.values()
    )


# Refusals


@pytest.mark.parametrize("conversations", [[], ["c23"]], ids=["nothing", "only held-out pairs"])
def test_nothing_to_train_on_is_said_clearly(tmp_path: Path, conversations: list[str]) -> None:
    with pytest.raises(InvalidInput, match="nothing to train on yet: correct an answer"):
        frozen(tmp_path, conversations)
    assert list(tmp_path.iterdir()) == []
