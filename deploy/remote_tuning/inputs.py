"""The artefacts of a home that a tuning job reads, and the names under which they travel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.home import Home
from tuning.ai_labels import labels_of
from tuning.start_adapter import start_of


def inputs_of(home: Home, document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield (folder in the home, digest) for each artefact that a job reads.

    `document` has its `snapshot` and its `recipe` in plain values.
    """
    recipe = document["recipe"]
    yield home.snapshots, str(document["snapshot"])
    if (labels := labels_of(recipe)) is not None:
        yield home.ai_labels, labels
    if (start := start_of(recipe)) is not None:
        yield home.bundles, start
