"""Sets of pairs that an AI judge labelled, kept apart from all that people said.

They are never events, and never in a snapshot. A set is a folder of its own, content-addressed, so
that a job that names it knows exactly what it trains on; its manifest names the snapshot it goes
with and the judge. It holds people's words: who forgets a person rewrites the sets, too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import InvalidInput
from engine.messages import Message, messages_from_dicts
from engine.storage import (
    canonical_json,
    digest_bytes,
    folder_of,
    list_digests,
    publish,
    read_manifest,
    verify,
)
from feedback_store.examples.types import Origin, Side

AI_PAIRS_FORMAT = "burnish-ai-pairs/1"
PAIRS_FILE = "ai_pairs.jsonl"


@dataclass(frozen=True, slots=True)
class AiPair:
    """A pair by an AI judge, who found `chosen` better than `rejected` for this prompt.

    Looks like `examples.Pair` to what trains on it. Its origin has no events, since nobody said
    anything; its one user is who asked.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: Side
    rejected: Side
    judge: str
    origin: Origin
    source: Literal["ai"] = "ai"

    @property
    def sides(self) -> tuple[Side, ...]:
        """The completions."""
        return self.chosen, self.rejected

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form; `_from_dict` is its inverse."""
        return {**asdict(self), "prompt": [message.as_dict() for message in self.prompt]}


@dataclass(frozen=True, slots=True)
class AiPairs:
    """A set of them, read."""

    digest: str
    manifest: Mapping[str, Any]
    pairs: tuple[AiPair, ...]


def ai_pair_id(judge: str, chosen: Side, rejected: Side) -> str:
    """The id of a label: the same for the same judge and answers."""
    return digest_bytes("\n".join(["ai", judge, chosen.answer_id, rejected.answer_id]).encode())


def publish_ai_pairs(
    root: Path, pairs: Sequence[AiPair], *, snapshot: str, judge: str, about: Mapping[str, Any]
) -> str:
    """Publish a judge's labels beside a snapshot; returns the set's digest.

    `about` goes into the manifest. Raises `InvalidInput` when there are none.
    """
    if not pairs:
        raise InvalidInput("the judge labelled no pair")

    def fill(folder: Path) -> dict[str, Any]:
        lines = b"".join(canonical_json(pair.as_dict()) + b"\n" for pair in pairs)
        (folder / PAIRS_FILE).write_bytes(lines)
        return {
            **about,
            "format": AI_PAIRS_FORMAT,
            "snapshot": snapshot,
            "judge": judge,
            "pairs": len(pairs),
        }

    return publish(root, fill)


def open_ai_pairs(root: Path, digest: str) -> AiPairs:
    """Read a set; raises `InvalidInput` with every problem."""
    problems = verify(root, digest)
    if problems:
        raise InvalidInput(f"AI labels {digest} refused: " + "; ".join(problems))
    folder = folder_of(root, digest)
    manifest = read_manifest(folder)
    if manifest.get("format") != AI_PAIRS_FORMAT:
        raise InvalidInput(f"AI labels {digest}: the format is {manifest.get('format')!r}")
    with (folder / PAIRS_FILE).open("rb") as file:
        return AiPairs(digest, manifest, tuple(_from_dict(json.loads(line)) for line in file))


def rewrite_ai_pairs(root: Path, keep: Callable[[AiPair], bool]) -> dict[str, str | None]:
    """Publish each set that has a pair which may not stay anew, without it; the old one stays.

    Returns what stands for which: a digest, or None where nothing is left. Other sets are not in
    the result. This is how a person is forgotten, as with snapshots.
    """
    replaced: dict[str, str | None] = {}
    for digest in list_digests(root):
        found = open_ai_pairs(root, digest)
        kept = [pair for pair in found.pairs if keep(pair)]
        if len(kept) == len(found.pairs):
            continue
        replaced[digest] = None
        if kept:
            derived = ("format", "snapshot", "judge", "pairs", "files")
            manifest = found.manifest
            replaced[digest] = publish_ai_pairs(
                root,
                kept,
                snapshot=manifest["snapshot"],
                judge=manifest["judge"],
                about={key: value for key, value in manifest.items() if key not in derived},
            )
    return replaced


def draw_pairs(pairs: Sequence[AiPair], share: float, seed: int) -> list[AiPair]:
    """A share of the pairs, drawn without replacement, in their order; at least one of some.

    This is how they weigh less than people's pairs: trl's preference losses have no weight for a
    row, so each pair has a chance of `share` to be in the run. Its expected weight is then `share`
    of a person's pair's; what is drawn weighs as much as a person's pair. The same seed draws the
    same pairs. Raises `InvalidInput` for a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise InvalidInput("the share of AI labels must lie in (0, 1)")
    if not pairs:
        return []
    count = max(1, round(share * len(pairs)))
    places = random.Random(seed).sample(range(len(pairs)), count)  # noqa: S311 - no secret
    return [pairs[place] for place in sorted(places)]


def _from_dict(row: Mapping[str, Any]) -> AiPair:
    origin = row["origin"]
    return AiPair(
        row["id"],
        messages_from_dicts(row["prompt"]),
        Side(**row["chosen"]),
        Side(**row["rejected"]),
        row["judge"],
        Origin(
            origin["conversation_id"],
            origin["template_hash"],
            tuple(origin["event_ids"]),
            tuple(origin["user_ids"]),
        ),
    )
