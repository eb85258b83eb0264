"""A snapshot is frozen training data: the same for the same evidence, and refused when changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput, UnknownId
from engine.messages import Message
from engine.storage import canonical_json, publish
from feedback_store.pairing import Pair, Pairing, build_pairs
from feedback_store.snapshot import PreferenceRow, freeze, open_snapshot, split_of
from feedback_store.store import FeedbackStore
from tests.feedback_store.conftest import Conversations

# First 16 hexadecimal digits of `printf burnish-split/1:c0 | sha256sum`; below 3333... is held out
SIDES = {
    "c0": "train",  # 8a6ebf1de0f7dff7
    "c13": "train",  # 3537e6b32dcb3e20
    "c23": "heldout",  # 1fd0a25661a7abb4
    "c29": "train",  # c3c64cbbe3d70972
}


def pair(conversation: str, **changed: Any) -> Pair:
    fields: dict[str, Any] = {
        "prompt": (Message("system", "Be brief."), Message("user", f"Q of {conversation}")),
        "chosen": "Good, 好.",
        "rejected": "Bad.",
        "chosen_complete": True,
        "rejected_complete": False,
        "source": "votes",
        "conversation_id": conversation,
        "turn_id": "t1",
        "template_hash": "hash",
        "event_ids": (1, 2),
        "user_ids": ("ann",),
        "chosen_adapter": None,
        "rejected_adapter": "sha256:old",
    }
    return Pair(**(fields | changed))


def frozen(root: Path, conversations: Iterable[str], events: int = 9) -> str:
    return freeze(root, Pairing([pair(c) for c in conversations]), last_event_count=events)


def files(root: Path, digest: str) -> dict[str, list[dict[str, Any]]]:
    folder = root / digest.removeprefix("sha256:")
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_bytes().splitlines()]
        for split in ("train", "heldout")
    }


def test_a_snapshot_gives_back_its_pairs_on_their_sides(tmp_path: Path) -> None:
    snapshot = open_snapshot(tmp_path, frozen(tmp_path, ["c0", "c23", "c13"]))

    def row(conversation: str) -> PreferenceRow:
        prompt = (Message("system", "Be brief."), Message("user", f"Q of {conversation}"))
        return PreferenceRow(prompt, "Good, 好.", "Bad.", True, False, conversation)

    assert snapshot.train == (row("c0"), row("c13"))
    assert snapshot.heldout == (row("c23"),)
    assert snapshot.manifest["pairs"] == {"train": 2, "heldout": 1}
    assert snapshot.manifest["sources"] == {"votes": 3}
    assert snapshot.manifest["event_count"] == 9


def test_the_same_pairs_make_the_same_digest_anywhere(tmp_path: Path) -> None:
    one = frozen(tmp_path / "one", ["c0", "c23"])
    assert frozen(tmp_path / "two", ["c0", "c23"]) == one
    assert frozen(tmp_path / "two", ["c0", "c13"]) != one


def test_the_same_evidence_makes_the_same_snapshot(
    store: FeedbackStore, talk: Conversations, tmp_path: Path
) -> None:
    for number in range(5):
        answer_id = talk.ask(f"Q{number}", conversation=f"c{number}")
        store.correct(answer_id, "ann", f"Better {number}.")

    def freeze_now() -> str:
        pairing = build_pairs(store.evidence())
        return freeze(tmp_path / "snapshots", pairing, last_event_count=store.event_count())

    first = freeze_now()
    talk.ask("a turn without feedback", conversation="c0")
    assert freeze_now() == first
    assert len(open_snapshot(tmp_path / "snapshots", first).train) == 5


def test_lines_are_in_the_format_trl_reads(tmp_path: Path) -> None:
    (line,) = files(tmp_path, frozen(tmp_path, ["c0"]))["train"]
    assert line["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q of c0"},
    ]
    assert line["chosen"] == [{"role": "assistant", "content": "Good, 好."}]
    assert line["rejected"] == [{"role": "assistant", "content": "Bad."}]
    assert (line["event_ids"], line["user_ids"]) == ([1, 2], ["ann"])


# The split


@pytest.mark.parametrize(("conversation", "side"), SIDES.items())
def test_a_conversation_stays_on_its_side_in_every_version(conversation: str, side: str) -> None:
    assert split_of(conversation) == side


def test_new_data_never_moves_an_old_conversation(tmp_path: Path) -> None:
    old, new = [f"old-{i}" for i in range(50)], [f"new-{i}" for i in range(200)]

    def sides(digest: str) -> dict[str, str]:
        return {
            line["conversation_id"]: split
            for split, lines in files(tmp_path, digest).items()
            for line in lines
        }

    before, after = sides(frozen(tmp_path, old)), sides(frozen(tmp_path, new + old))
    assert set(before.values()) == {"train", "heldout"}
    assert {conversation: after[conversation] for conversation in old} == before


def test_all_pairs_of_a_conversation_are_on_one_side(tmp_path: Path) -> None:
    pairs = [pair("c23", turn_id=f"t{i}", chosen=f"Good {i}") for i in range(5)] + [pair("c0")]
    digest = freeze(tmp_path, Pairing(pairs), last_event_count=0)
    assert [len(lines) for lines in files(tmp_path, digest).values()] == [1, 5]


def test_about_a_fifth_is_held_out() -> None:
    held = sum(split_of(f"conversation-{i}") == "heldout" for i in range(10_000))
    assert 1_840 <= held <= 2_160  # four standard deviations of 40


# Refusals


@pytest.mark.parametrize("conversations", [[], ["c23"]], ids=["nothing", "only held-out pairs"])
def test_nothing_to_train_on_is_said_clearly(tmp_path: Path, conversations: list[str]) -> None:
    with pytest.raises(InvalidInput, match="no preference pairs to train on yet"):
        frozen(tmp_path, conversations)
    assert list(tmp_path.iterdir()) == []


def swap_sides(folder: Path) -> None:
    path = folder / "train.jsonl"
    line = json.loads(path.read_bytes())
    line["chosen"], line["rejected"] = line["rejected"], line["chosen"]
    path.write_bytes(canonical_json(line) + b"\n")


def flip_one_bit(folder: Path) -> None:
    path = folder / "train.jsonl"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def drop_heldout(folder: Path) -> None:
    (folder / "heldout.jsonl").unlink()


def claim_more_pairs(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"train":1', b'"train":2'))


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (swap_sides, "train.jsonl differs"),
        (flip_one_bit, "train.jsonl differs"),
        (drop_heldout, "heldout.jsonl is missing"),
        (claim_more_pairs, "manifest.json does not match"),
    ],
)
def test_a_changed_snapshot_is_refused_with_the_reason(
    tmp_path: Path, tamper: Callable[[Path], None], reason: str
) -> None:
    digest = frozen(tmp_path, ["c0", "c23"])
    open_snapshot(tmp_path, digest)
    tamper(tmp_path / digest.removeprefix("sha256:"))
    with pytest.raises(InvalidInput, match=reason):
        open_snapshot(tmp_path, digest)


def test_training_data_that_was_held_out_is_refused(tmp_path: Path) -> None:
    """A snapshot whose digests are right, made by other software that split differently."""

    def fill(folder: Path) -> dict[str, Any]:
        (folder / "train.jsonl").write_bytes(canonical_json(pair("c23").as_trl()) + b"\n")
        (folder / "heldout.jsonl").write_bytes(b"")
        return {"format": "burnish-snapshot/1", "heldout_share": 0.2, "pairs": {}}

    digest = publish(tmp_path, fill)
    with pytest.raises(InvalidInput, match="wrong side of the split"):
        open_snapshot(tmp_path, digest)


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    digest = publish(tmp_path, lambda _: {"format": "burnish-snapshot/99"})
    with pytest.raises(InvalidInput, match="burnish-snapshot/99"):
        open_snapshot(tmp_path, digest)


@pytest.mark.parametrize("name", ["../secrets", "/etc", "sha256:" + "A" * 64, ""])
def test_a_name_that_is_no_digest_opens_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownId):
        open_snapshot(tmp_path, name)
