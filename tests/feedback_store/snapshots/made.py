"""Snapshots of given conversations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feedback_store.examples.types import Examples
from feedback_store.snapshots.snapshot import freeze
from tests.feedback_store.helpers import voted_pair


def frozen(
    root: Path, conversations: Iterable[str], *, flip_rate: float | None = None, **options: Any
) -> str:
    pairs = [voted_pair(conversation) for conversation in conversations]
    return freeze(root, Examples(pairs=pairs, flip_rate=flip_rate), **{"last_event": 9, **options})
