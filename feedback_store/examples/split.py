"""The train/held-out split of conversations. A side depends on the id alone, for good."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

HELDOUT_SHARE = 0.2
SplitName = Literal["train", "heldout", "gold"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


def split_of(
    conversation_id: str, heldout_share: float = HELDOUT_SHARE, gold: frozenset[str] = frozenset()
) -> SplitName:
    """Train or held-out by a hash of the id; a held-out conversation that is marked is gold."""
    head = hashlib.sha256(b"burnish-split/1:" + conversation_id.encode()).digest()[:8]
    if int.from_bytes(head) >= heldout_share * 2**64:
        return "train"
    return "gold" if conversation_id in gold else "heldout"
