"""Reference log-probabilities, kept on disk so that each row is paid for once.

DPO compares the model with the one it started from (Rafailov et al. 2023, eq. 7), which does not
change: up to rounding, its log-probabilities of a row depend on the base, the start adapter, the
template and the row's token ids. One file holds the rows of the latest run with the first three; a
row that has left the data leaves the file. Numbers and digests only. Knows no trainer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.storage import canonical_json, digest_bytes, digest_json, write_atomically

PairRow = Mapping[str, Sequence[int]]  # prompt_ids, chosen_ids, rejected_ids
PairLogProbs = tuple[float, float]  # of chosen and rejected: sums of natural logarithms
Compute = Callable[[Sequence[PairRow]], Sequence[PairLogProbs]]
PAIR_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


@dataclass(frozen=True, slots=True)
class ReferenceKey:
    """All that reference log-probabilities depend on, beside the rows."""

    base: str  # digest of the base model
    adapter: str | None  # digest of the start adapter; None: the base model itself
    template: str  # digest of the chat template
    number_format: str  # what the pass is computed in and by, since roundings differ


@dataclass(frozen=True, slots=True)
class ReferenceLookup:
    """The result of a lookup: one value per row, and the number of rows that were cached."""

    log_probs: tuple[PairLogProbs, ...]
    cached: int


def look_up_references(
    folder: Path, key: ReferenceKey, rows: Sequence[PairRow], compute: Compute
) -> ReferenceLookup:
    """Each row's log-probabilities; those not in the folder are computed, and all are kept.

    A file that is not what was written is not read: its rows are computed again.
    """
    path = folder / f"{digest_json(asdict(key)).removeprefix('sha256:')}.json"
    known = _read(path)
    digests = [row_digest(row) for row in rows]
    missing = {
        digest: row for digest, row in zip(digests, rows, strict=True) if digest not in known
    }
    if missing:
        found = compute(list(missing.values()))
        known |= dict(zip(missing, found, strict=True))
    kept = {digest: known[digest] for digest in digests}
    folder.mkdir(parents=True, exist_ok=True)
    body = canonical_json({"key": asdict(key), "rows": kept})
    write_atomically(path, digest_bytes(body).encode() + b"\n" + body)
    cached = sum(digest not in missing for digest in digests)
    return ReferenceLookup(tuple(known[digest] for digest in digests), cached)


def row_digest(row: PairRow) -> str:
    """Digest of a row's token ids."""
    return digest_json([list(row[column]) for column in PAIR_COLUMNS])


def _read(path: Path) -> dict[str, PairLogProbs]:
    try:
        digest, body = path.read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return {}
    if digest.decode(errors="replace") != digest_bytes(body):
        return {}
    return {row: (chosen, rejected) for row, (chosen, rejected) in json.loads(body)["rows"].items()}
