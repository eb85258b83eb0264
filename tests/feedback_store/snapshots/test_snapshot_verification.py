"""A snapshot that was changed, or does not hold together, is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput, UnknownId
from engine.storage import canonical_json, folder_of, publish
from feedback_store.examples.types import TrainingExample
from feedback_store.snapshots.snapshot import freeze, open_snapshot, verify_snapshot
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import examples_now, voted_pair
from tests.feedback_store.snapshots.made import frozen


def swap_sides(folder: Path) -> None:
    path = folder / "train" / "pairs.jsonl"
    line = json.loads(path.read_bytes())
    line["chosen"], line["rejected"] = line["rejected"], line["chosen"]
    path.write_bytes(canonical_json(line) + b"\n")


def flip_one_bit(folder: Path) -> None:
    path = folder / "train" / "pairs.jsonl"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def drop_heldout(folder: Path) -> None:
    (folder / "heldout" / "pairs.jsonl").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "train" / "more.jsonl").write_bytes(b"")


def claim_more_pairs(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"pairs":1', b'"pairs":2', 1))


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (swap_sides, "train/pairs.jsonl differs"),
        (flip_one_bit, "train/pairs.jsonl differs"),
        (drop_heldout, "heldout/pairs.jsonl is missing"),
        (add_a_file, "train/more.jsonl is not in the manifest"),
        (claim_more_pairs, "manifest.json does not match"),
    ],
)
def test_a_changed_snapshot_is_refused_with_the_reason(
    tmp_path: Path, tamper: Callable[[Path], None], reason: str
) -> None:
    digest = frozen(tmp_path, ["c0", "c23"])
    assert verify_snapshot(tmp_path, digest) == []
    tamper(folder_of(tmp_path, digest))
    with pytest.raises(InvalidInput, match=reason):
        open_snapshot(tmp_path, digest)


Files = dict[str, bytes]


def line_of(example: TrainingExample, **changed: Any) -> bytes:
    return canonical_json({**example.as_dict(), **changed}) + b"\n"


def remade(
    root: Path, change: Callable[[Files, dict[str, Any]], None] = lambda files, manifest: None
) -> list[str]:
    """What is wrong with a snapshot that other software made, all of whose digests are right.

    One pair to train on (c0), one held out (c23), then `change`.
    """
    digest = frozen(root, ["c0", "c23"])
    folder = folder_of(root, digest)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    files = {name: (folder / name).read_bytes() for name in manifest.pop("files")}
    change(files, manifest)

    def fill(new: Path) -> dict[str, Any]:
        for name, data in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_bytes(data)
        return manifest

    return verify_snapshot(root, publish(root, fill))


def test_a_snapshot_that_others_made_rightly_is_accepted(tmp_path: Path) -> None:
    assert remade(tmp_path) == []


def move_to_train(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] += files["heldout/pairs.jsonl"]
    files["heldout/pairs.jsonl"] = b""
    manifest["counts"]["train"]["pairs"], manifest["counts"]["heldout"]["pairs"] = 2, 0


def move_to_gold(files: Files, manifest: dict[str, Any]) -> None:
    files["gold/pairs.jsonl"] = files["train/pairs.jsonl"]
    files["train/pairs.jsonl"] = b""
    manifest["counts"]["gold"]["pairs"], manifest["counts"]["train"]["pairs"] = 1, 0


def move_to_gold_unmarked(files: Files, manifest: dict[str, Any]) -> None:
    files["gold/pairs.jsonl"], files["heldout/pairs.jsonl"] = files["heldout/pairs.jsonl"], b""
    manifest["counts"]["gold"]["pairs"], manifest["counts"]["heldout"]["pairs"] = 1, 0


def mark_without_moving(files: Files, manifest: dict[str, Any]) -> None:
    manifest["gold"] = ["c99"]


def forget_the_gold(files: Files, manifest: dict[str, Any]) -> None:
    del manifest["gold"]


def mark_no_names(files: Files, manifest: dict[str, Any]) -> None:
    manifest["gold"] = [["c23"]]


def repeat_a_row(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] *= 2
    manifest["counts"]["train"]["pairs"] = 2
    manifest["sources"]["pairs/votes"] = 3


def space_out(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] = json.dumps(voted_pair("c0").as_dict()).encode() + b"\n"


def end_as_on_windows(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] = line_of(voted_pair("c0"))[:-1] + b"\r\n"


def lose_the_last_newline(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] = line_of(voted_pair("c0"))[:-1]


def add_a_key(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] = line_of(voted_pair("c0"), note="hi")


def give_another_id(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] = line_of(voted_pair("c0"), id="sha256:" + "0" * 64)


def swap_the_answers_ids(files: Files, manifest: dict[str, Any]) -> None:
    pair = voted_pair("c0")
    files["train/pairs.jsonl"] = line_of(
        pair, chosen_answer_id=pair.rejected.answer_id, rejected_answer_id=pair.chosen.answer_id
    )


def claim_another_count(files: Files, manifest: dict[str, Any]) -> None:
    manifest["counts"]["train"]["pairs"] = 7


def forget_the_counts(files: Files, manifest: dict[str, Any]) -> None:
    del manifest["counts"]


def claim_another_source(files: Files, manifest: dict[str, Any]) -> None:
    manifest["sources"] = {"pairs/correction": 2}


def hold_out_none(files: Files, manifest: dict[str, Any]) -> None:
    manifest["heldout_share"] = "some"


def write_no_json(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] = b"{\n"


def nest_deeply(files: Files, manifest: dict[str, Any]) -> None:
    files["train/pairs.jsonl"] = b"[" * 200_000 + b"\n"


def leave_out_a_key(files: Files, manifest: dict[str, Any]) -> None:
    row = voted_pair("c0").as_dict()
    del row["chosen_complete"]
    files["train/pairs.jsonl"] = canonical_json(row) + b"\n"


def leave_out_a_file(files: Files, manifest: dict[str, Any]) -> None:
    del files["gold/unpaired.jsonl"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (move_to_train, "train/pairs.jsonl: a conversation is on the wrong side of the split"),
        (move_to_gold, "gold/pairs.jsonl: a conversation is on the wrong side of the split"),
        (
            move_to_gold_unmarked,
            "gold/pairs.jsonl: a conversation is on the wrong side of the split",
        ),
        (mark_without_moving, "a conversation is gold of which there is no gold row"),
        (forget_the_gold, "the manifest does not say which conversations are gold"),
        (mark_no_names, "the manifest does not say which conversations are gold"),
        (repeat_a_row, "train/pairs.jsonl: an id appears twice"),
        (space_out, "train/pairs.jsonl: a line is not in canonical form"),
        (end_as_on_windows, "train/pairs.jsonl: a line is not in canonical form"),
        (lose_the_last_newline, "train/pairs.jsonl: a line is not in canonical form"),
        (add_a_key, "train/pairs.jsonl: a line is not in canonical form"),
        (give_another_id, "train/pairs.jsonl: an id is not that of its row"),
        (swap_the_answers_ids, "train/pairs.jsonl: an id is not that of its row"),
        (claim_another_count, "the counts are not those of the rows"),
        (forget_the_counts, "the counts are not those of the rows"),
        (claim_another_source, "the sources are not those of the rows"),
        (hold_out_none, "the manifest does not say what share is held out"),
        (write_no_json, "train/pairs.jsonl cannot be read"),
        (nest_deeply, "train/pairs.jsonl cannot be read"),
        (leave_out_a_key, "train/pairs.jsonl cannot be read: 'chosen_complete'"),
        (leave_out_a_file, "gold/unpaired.jsonl cannot be read"),
    ],
)
def test_each_way_in_which_a_snapshot_does_not_hold_is_named(
    tmp_path: Path, change: Callable[[Files, dict[str, Any]], None], problem: str
) -> None:
    (found,) = remade(tmp_path, change)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "name", ["burnish-snapshot/1", "burnish-snapshot/2", "burnish-snapshot/99"]
)
def test_another_format_is_refused_by_name(tmp_path: Path, name: str) -> None:
    digest = publish(tmp_path, lambda _: {"format": name})
    with pytest.raises(InvalidInput, match=f"{name}.*make a new one"):
        open_snapshot(tmp_path, digest)


@pytest.mark.parametrize("name", ["../secrets", "/etc", "sha256:" + "A" * 64, ""])
def test_a_name_that_is_no_digest_opens_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownId):
        open_snapshot(tmp_path, name)


def test_a_nul_that_a_model_wrote_spoils_no_snapshot(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet, tmp_path: Path
) -> None:
    store.correct(talk.ask(text="Be\x00cause.", conversation="c0"), "ann", "Because.")
    examples = examples_now(training_set, reestimate=True)
    digest = freeze(tmp_path / "snapshots", examples, last_event=1)
    (pair,) = open_snapshot(tmp_path / "snapshots", digest).train.pairs
    assert pair.rejected.text == "Be\ufffdcause."
