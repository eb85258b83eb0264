"""What a job tells the world: one JSON object a line, appended as it happens. No user text.

The numbers of the steps go into TensorBoard's files as well. Knows no trainer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Report = Callable[[dict[str, Any]], None]
NO_CURVE = ("step", "steps", "seconds", "eta_seconds")  # a step's numbers that say when, not what


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


class TensorBoardLog:
    """Writes each number of each step as a scalar `STAGE/NAME` into TensorBoard's event files.

    A resumed job adds a file to the folder; TensorBoard shows them as one run.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

        self._writer = SummaryWriter(str(folder))

    def __call__(self, event: dict[str, Any]) -> None:
        """Add one event, if it is a step."""
        if event["event"] != "step":
            return
        for name, value in event.items():
            if isinstance(value, int | float) and name not in NO_CURVE:
                self._writer.add_scalar(f"{event['stage']}/{name}", value, event["step"])
        self._writer.flush()  # a kill loses nothing that was reported

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()


class ProgressTail:
    """Reads a progress file that grows: each time what has come since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def read(self) -> list[dict[str, Any]]:
        """The events of all whole new lines; the last may still be in the writing."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        events = []
        for line in whole.splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:  # cut short by a kill
                continue
        return events


def read_progress(path: Path) -> list[dict[str, Any]]:
    """All events so far; none where there is no file."""
    return ProgressTail(path).read()
