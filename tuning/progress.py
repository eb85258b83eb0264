"""What a job tells the world: one JSON object a line, appended as it happens. No user text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Report = Callable[[dict[str, Any]], None]


class ProgressLog:
    """Appends events to a job's `progress.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            with path.open("a") as file:  # a kill cut the last line short; begin a new one
                file.write("\n")

    def __call__(self, event: dict[str, Any]) -> None:
        """Append one event."""
        line = json.dumps({"at": time.time(), **event})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_progress(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a progress file; the last may still be in the writing."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text("utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
