"""The snapshot: frozen training data, content-addressed. This module owns the format.

`train`, `heldout` and `gold` are folders with one file for each kind of example, one canonical JSON
object a line. The same examples always give the same digest. A conversation stays on its side of
the split for good, since its side depends on its id alone; gold conversations are held-out ones
that the operator marked, and the manifest names them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import InvalidInput
from engine.storage import canonical_json, folder_of, publish, read_manifest, verify
from feedback_store.examples.split import HELDOUT_SHARE, SPLITS, SplitName, split_of
from feedback_store.examples.text_comparison import read_the_same
from feedback_store.examples.types import (
    Demonstration,
    Examples,
    Pair,
    Redact,
    TrainingExample,
    Unpaired,
    demonstration_from_dict,
    derived_id,
    pair_from_dict,
    redacted,
    unpaired_from_dict,
)

SNAPSHOT_FORMAT = "burnish-snapshot/3"
READERS: Mapping[str, Callable[[Mapping[str, Any]], TrainingExample]] = {
    "pairs": pair_from_dict,
    "unpaired": unpaired_from_dict,
    "demonstrations": demonstration_from_dict,
}
# What reading a file raises that is no snapshot's
UNREADABLE = (OSError, ValueError, LookupError, TypeError, RecursionError, InvalidInput)
BySplit = Mapping[SplitName, Mapping[str, Sequence[TrainingExample]]]


E = TypeVar("E", bound=TrainingExample)


@dataclass(frozen=True, slots=True)
class Split:
    """One side of a snapshot."""

    pairs: tuple[Pair, ...] = ()
    unpaired: tuple[Unpaired, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()

    @property
    def examples(self) -> Iterator[TrainingExample]:
        """The examples of all kinds."""
        yield from self.pairs
        yield from self.unpaired
        yield from self.demonstrations

    @property
    def conversations(self) -> set[str]:
        """The ids of the examples' conversations."""
        return {example.origin.conversation_id for example in self.examples}

    def without(self, conversations: Collection[str]) -> Split:
        """The side without the examples of some conversations."""

        def kept(some: tuple[E, ...]) -> tuple[E, ...]:
            return tuple(e for e in some if e.origin.conversation_id not in conversations)

        return Split(kept(self.pairs), kept(self.unpaired), kept(self.demonstrations))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot, read."""

    digest: str
    manifest: Mapping[str, Any]
    train: Split
    heldout: Split
    gold: Split


def freeze(
    root: Path,
    examples: Examples,
    *,
    last_event: int,
    gold: frozenset[str] = frozenset(),
    redact: Redact | None = None,
    thoughts_in_loss: bool = True,
    may_be_empty: bool = False,
) -> str:
    """Publish examples as a snapshot; returns its digest.

    `redact` is applied to every text; a pair that it makes alike is set aside. `thoughts_in_loss`:
    whether training covers the thought of a chain-of-thought answer or the answer alone.
    Raises `InvalidInput` when there is nothing to train on, unless it `may_be_empty`.
    """
    kept, set_aside = _redacted(examples, redact)
    by_split = {split: {kind: _of(kept[kind], split, gold) for kind in READERS} for split in SPLITS}
    if not may_be_empty and not any(by_split["train"].values()):
        raise InvalidInput(
            "nothing to train on yet: correct an answer, compare two, or regenerate one and vote"
            " differently on the two"
        )
    return _publish(
        root,
        by_split,
        {
            "format": SNAPSHOT_FORMAT,
            "last_event": last_event,
            "heldout_share": HELDOUT_SHARE,
            "thoughts_in_loss": thoughts_in_loss,
            "flip_rate": examples.flip_rate,
            "redacted": redact is not None,
            "set_aside": set_aside,
        },
    )


def newer_part(root: Path, snapshot: Snapshot, since_event: int) -> str | None:
    """Publish the examples that rest on statements after an event alone, and all gold ones.

    The manifest has `since_event`, and `seen`: the counts by source of the whole snapshot. None
    where nothing to train on is left.
    """
    gold = {row.id for row in snapshot.gold.examples}
    return rewrite(
        root,
        snapshot,
        lambda row: row.id in gold or row.origin.is_after(since_event),
        since_event=since_event,
        seen=snapshot.manifest["sources"],
    )


def rewrite(
    root: Path, snapshot: Snapshot, keep: Callable[[TrainingExample], bool], **changed: Any
) -> str | None:
    """Publish a snapshot's examples that may stay, with `changed` keys of the manifest.

    None where nothing to train on is left.
    """
    by_split = {
        split: {
            kind: [row for row in getattr(getattr(snapshot, split), kind) if keep(row)]
            for kind in READERS
        }
        for split in SPLITS
    }
    if not any(by_split["train"].values()):
        return None
    derived = ("counts", "sources", "gold", "files")
    return _publish(
        root, by_split, {k: v for k, v in snapshot.manifest.items() if k not in derived} | changed
    )


def _publish(root: Path, by_split: BySplit, manifest: Mapping[str, Any]) -> str:
    def fill(folder: Path) -> dict[str, Any]:
        for split, kinds in by_split.items():
            (folder / split).mkdir()
            for kind, rows in kinds.items():
                lines = b"".join(canonical_json(row.as_dict()) + b"\n" for row in rows)
                (folder / split / f"{kind}.jsonl").write_bytes(lines)
        return {
            **manifest,
            "counts": _counts(by_split),
            "sources": _sources(by_split),
            "gold": _gold(by_split),
        }

    return publish(root, fill)


def open_snapshot(root: Path, digest: str) -> Snapshot:
    """Read a snapshot; raises `InvalidInput` with every problem that `verify_snapshot` finds."""
    problems = verify_snapshot(root, digest)
    if problems:
        raise InvalidInput(f"snapshot {digest} refused: " + "; ".join(problems))
    folder = folder_of(root, digest)
    return Snapshot(
        digest, read_manifest(folder), *(_read_split(folder, split) for split in SPLITS)
    )


def verify_snapshot(root: Path, digest: str) -> list[str]:
    """Derive everything about a snapshot anew; returns each problem that was found.

    Files and their digests, each line's canonical form, ids, sides of the split, counts, sources.
    """
    problems = verify(root, digest)
    if problems:
        return problems
    folder = folder_of(root, digest)
    manifest = read_manifest(folder)
    if problem := _manifest_problem(manifest):
        return [problem]
    gold = set(manifest["gold"])
    side_of = partial(split_of, heldout_share=manifest["heldout_share"], gold=frozenset(gold))
    found: dict[SplitName, dict[str, Sequence[TrainingExample]]] = {}
    for split in SPLITS:
        found[split] = {}
        for kind in READERS:
            path = folder / split / f"{kind}.jsonl"
            try:
                found[split][kind] = _read(path, kind)
            except UNREADABLE as error:
                return [*problems, f"{split}/{path.name} cannot be read: {error}"]
            problems += _row_problems(path, found[split][kind], split, side_of)
    if _counts(found) != manifest.get("counts"):
        problems.append("the counts are not those of the rows")
    if _sources(found) != manifest.get("sources"):
        problems.append("the sources are not those of the rows")
    if not gold <= set(_gold(found)):
        problems.append("a conversation is gold of which there is no gold row")
    return problems


def _manifest_problem(manifest: Mapping[str, Any]) -> str | None:
    """The problem that keeps the rows from being checked, or None."""
    if manifest.get("format") != SNAPSHOT_FORMAT:
        return f"its format is {manifest.get('format')!r}, not {SNAPSHOT_FORMAT!r}; make a new one"
    if not isinstance(manifest.get("heldout_share"), float):
        return "the manifest does not say what share is held out"
    gold = manifest.get("gold")
    if not isinstance(gold, list) or not all(isinstance(name, str) for name in gold):
        return "the manifest does not say which conversations are gold"
    return None


def _row_problems(
    path: Path, rows: Sequence[TrainingExample], split: str, side_of: Callable[[str], SplitName]
) -> Iterator[str]:
    place = f"{split}/{path.name}"
    if b"".join(canonical_json(row.as_dict()) + b"\n" for row in rows) != path.read_bytes():
        yield f"{place}: a line is not in canonical form"
    if len({row.id for row in rows}) != len(rows):
        yield f"{place}: an id appears twice"
    if any(derived_id(row) != row.id for row in rows):
        yield f"{place}: an id is not that of its row"
    if any(side_of(row.origin.conversation_id) != split for row in rows):
        yield f"{place}: a conversation is on the wrong side of the split"


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two snapshots, as example ids for each `split/kind`."""

    added: Mapping[str, tuple[str, ...]]
    removed: Mapping[str, tuple[str, ...]]
    changed: Mapping[str, tuple[str, ...]]


def diff(old: Snapshot, new: Snapshot) -> Difference:
    """Compare one snapshot with the next."""
    added, removed, changed = {}, {}, {}
    for split in SPLITS:
        for kind in READERS:
            before, after = (
                {example.id: example for example in getattr(getattr(snapshot, split), kind)}
                for snapshot in (old, new)
            )
            place = f"{split}/{kind}"
            added[place] = tuple(sorted(after.keys() - before.keys()))
            removed[place] = tuple(sorted(before.keys() - after.keys()))
            changed[place] = tuple(
                sorted(k for k in before.keys() & after.keys() if before[k] != after[k])
            )
    return Difference(added, removed, changed)


def _redacted(
    examples: Examples, redact: Redact | None
) -> tuple[dict[str, list[TrainingExample]], dict[str, int]]:
    kept: dict[str, list[TrainingExample]] = {kind: [*getattr(examples, kind)] for kind in READERS}
    set_aside = Counter(examples.set_aside_counts)
    if redact is not None:
        for kind, rows in kept.items():
            kept[kind] = [redacted(row, redact) for row in rows]
        told_apart = [row for row in kept["pairs"] if not read_the_same(*row.sides)]
        if len(told_apart) < len(kept["pairs"]):
            set_aside["identical after redaction"] += len(kept["pairs"]) - len(told_apart)
        kept["pairs"] = told_apart
    return kept, dict(sorted(set_aside.items()))


def _of(
    examples: Sequence[TrainingExample], split: SplitName, gold: frozenset[str]
) -> list[TrainingExample]:
    return [e for e in examples if split_of(e.origin.conversation_id, gold=gold) == split]


def _counts(by_split: BySplit) -> dict[str, dict[str, int]]:
    return {
        split: {kind: len(rows) for kind, rows in kinds.items()}
        for split, kinds in by_split.items()
    }


def _sources(by_split: BySplit) -> dict[str, int]:
    """The number of examples by kind and source."""
    counted = Counter(
        f"{kind}/{row.source}"
        for kinds in by_split.values()
        for kind, rows in kinds.items()
        for row in rows
    )
    return dict(sorted(counted.items()))


def _gold(by_split: BySplit) -> list[str]:
    """The conversations that the operator marked, as far as anything of them is here."""
    return sorted({e.origin.conversation_id for rows in by_split["gold"].values() for e in rows})


def _read_split(folder: Path, split: str) -> Split:
    return Split(*(tuple(_read(folder / split / f"{kind}.jsonl", kind)) for kind in READERS))  # type: ignore[arg-type]  # in the order of the fields


def _read(path: Path, kind: str) -> list[TrainingExample]:
    with path.open("rb") as file:
        return [READERS[kind](json.loads(line)) for line in file]
