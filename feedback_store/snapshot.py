"""The snapshot: frozen training data, content-addressed. This module owns the format.

`train.jsonl` and `heldout.jsonl` hold one canonical JSON object a line, in TRL's conversational
preference format. The same evidence always gives the same digest, and a conversation stays on its
side of the split for good, since its side depends on its id alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InvalidInput
from engine.messages import Message, messages_from_dicts
from engine.storage import canonical_json, folder_of, publish, read_manifest, verify
from feedback_store.pairing import Pair, Pairing

FORMAT = "burnish-snapshot/1"
HELDOUT_SHARE = 0.2
SPLITS = ("train", "heldout")


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """One line of a snapshot, as tuning and evaluation read it."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_complete: bool
    rejected_complete: bool
    conversation_id: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified snapshot."""

    digest: str
    manifest: Mapping[str, Any]
    train: tuple[PreferenceRow, ...]
    heldout: tuple[PreferenceRow, ...]


def split_of(conversation_id: str, heldout_share: float = HELDOUT_SHARE) -> str:
    """The side of the split a conversation belongs to, by its id alone."""
    head = hashlib.sha256(b"burnish-split/1:" + conversation_id.encode()).digest()[:8]
    return "heldout" if int.from_bytes(head) < heldout_share * 2**64 else "train"


def freeze(root: Path, pairing: Pairing, *, last_event_count: int) -> str:
    """Publish the pairs as a snapshot; returns its digest.

    Raises `InvalidInput` when there is not one pair to train on.
    """
    by_split: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for pair in pairing.pairs:
        by_split[split_of(pair.conversation_id)].append(pair)
    if not by_split["train"]:
        raise InvalidInput(
            f"no preference pairs to train on yet ({len(pairing.pairs)} in all): correct an answer,"
            " or regenerate one and vote differently on the two"
        )

    def fill(folder: Path) -> dict[str, Any]:
        for split, pairs in by_split.items():
            lines = b"".join(canonical_json(pair.as_trl()) + b"\n" for pair in pairs)
            (folder / f"{split}.jsonl").write_bytes(lines)
        return {
            "format": FORMAT,
            "event_count": last_event_count,
            "heldout_share": HELDOUT_SHARE,
            "pairs": {split: len(pairs) for split, pairs in by_split.items()},
            "sources": dict(Counter(pair.source for pair in pairing.pairs)),
            "set_aside": {k: n for k, n in pairing.set_aside.items() if n},
        }

    return publish(root, fill)


def open_snapshot(root: Path, digest: str) -> Snapshot:
    """Read a snapshot, verified; raises `InvalidInput` with every problem found."""
    folder = folder_of(root, digest)
    problems = verify(root, digest)
    if problems:
        raise InvalidInput(f"snapshot {digest} refused: " + "; ".join(problems))
    manifest = read_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise InvalidInput(f"snapshot {digest} has format {manifest.get('format')!r}")
    train, heldout = (_read(folder / f"{split}.jsonl") for split in SPLITS)
    for split, rows in zip(SPLITS, (train, heldout), strict=True):
        if any(split_of(row.conversation_id, manifest["heldout_share"]) != split for row in rows):
            raise InvalidInput(
                f"snapshot {digest}: a conversation is on the wrong side of the split"
            )
    return Snapshot(digest, manifest, train, heldout)


def _read(path: Path) -> tuple[PreferenceRow, ...]:
    with path.open("rb") as file:
        return tuple(preference_row(json.loads(line)) for line in file)


def preference_row(row: Mapping[str, Any]) -> PreferenceRow:
    """A line's JSON object as a value."""
    return PreferenceRow(
        prompt=messages_from_dicts(row["prompt"]),
        chosen=_only(row["chosen"]),
        rejected=_only(row["rejected"]),
        chosen_complete=row["chosen_complete"],
        rejected_complete=row["rejected_complete"],
        conversation_id=row["conversation_id"],
    )


def _only(messages: Iterable[Mapping[str, str]]) -> str:
    """The content of the one assistant message of a completion."""
    (message,) = messages_from_dicts(messages)
    return message.content
