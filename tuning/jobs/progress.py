"""A job's events on disk: `progress.jsonl`, a line each as they happen, and TensorBoard's files."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tuning.jobs.events import JobEvent, StepDone, decode, encode

# Fields of a step that say when it was and not how it went
NO_CURVE = ("event", "stage", "step", "steps", "seconds", "eta_seconds")


class ProgressLog:
    """Appends events to a job's `progress.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            with path.open("a") as file:  # a kill cut the last line short; begin a new one
                file.write("\n")

    def __call__(self, event: JobEvent) -> None:
        """Append one event."""
        line = json.dumps(encode(replace(event, at=time.time())))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class TensorBoardLog:
    """Writes each number of each step as a scalar `STAGE/NAME` into TensorBoard's event files.

    A resumed job adds a file to the folder; TensorBoard shows them as one run.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def __call__(self, event: JobEvent) -> None:
        """Add one event, if it is a step."""
        if not isinstance(event, StepDone):
            return
        for name, value in encode(event).items():
            if name not in NO_CURVE:
                self._writer.add_scalar(f"{event.stage}/{name}", value, event.step)
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
    """Reads a progress file while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def read(self) -> list[JobEvent]:
        """The events of all whole lines since the last call; the last may be half written."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        events = (_event(line) for line in whole.splitlines())
        return [event for event in events if event is not None]


def _event(line: bytes) -> JobEvent | None:
    try:
        document = json.loads(line)
    except ValueError:  # cut short by a kill
        return None
    return decode(document) if isinstance(document, dict) else None
