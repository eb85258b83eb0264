"""The folder of a job: its files by name, and how each is read and written.

`manifest.json` has the specification, by which any process can do the job; `pid` the process that
does; `progress.jsonl` its events and `log.txt` its output; `result.json` the end that the job came
to by itself; `cancelled` marks that somebody asked it to stop. Knows no processes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import BurnishError
from engine.storage import MANIFEST, digest_json, write_atomically
from tuning.jobs.events import JobEvent
from tuning.jobs.progress import ProgressLog, ProgressTail

LOG_BYTES = 20_000  # of the end of the output, which is all that a page shows


@dataclass(frozen=True, slots=True)
class JobSpec:
    """All a job depends on; plain values, since it crosses a process boundary."""

    home: str
    models: str  # the model cache
    base_name: str
    base_digest: str
    snapshot: str
    recipe: dict[str, Any]
    recipe_origins: dict[str, str]
    threads: int  # of all processes together
    processes: int = 1
    nice: int | None = None  # niceness; None is idle priority

    @property
    def id(self) -> str:
        """Digest of the inputs that decide the result; more processes make larger batches."""
        decisive = [self.base_digest, self.snapshot, self.recipe]
        return digest_json(decisive if self.processes == 1 else [*decisive, self.processes])

    @property
    def threads_each(self) -> int:
        """The threads of one process."""
        return max(1, self.threads // self.processes)


class JobFolder:
    """One job's files. The two logs are appended to; every other file is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output_file = path / "log.txt"
        self._progress_file = path / "progress.jsonl"
        self._manifest_file = path / MANIFEST
        self._pid_file = path / "pid"
        self._result_file = path / "result.json"
        self._cancelled_file = path / "cancelled"

    def begin(self, spec: JobSpec) -> None:
        """Make the folder, if it is not there, for a process that does or resumes the job."""
        self.path.mkdir(exist_ok=True)
        for leftover in (self._result_file, self._pid_file, self._cancelled_file):
            leftover.unlink(missing_ok=True)
        document = {**asdict(spec), "started_at": time.time()}
        write_atomically(self._manifest_file, json.dumps(document).encode())

    @property
    def exists(self) -> bool:
        """Return whether the job was ever begun."""
        return self._manifest_file.is_file()

    def manifest(self) -> dict[str, Any]:
        """The specification in plain values, with the time of the last start as `started_at`."""
        return _read(self._manifest_file)

    def spec(self, **changes: Any) -> JobSpec:
        """The specification, with other values of some fields."""
        document = self.manifest()
        document.pop("started_at")
        return JobSpec(**{**document, **changes})

    # The process

    def write_pid(self) -> None:
        """Record this process as the one that does the job."""
        write_atomically(self._pid_file, str(os.getpid()).encode())

    def pid(self) -> int | None:
        """The process that does the job, or did it last; None where it has not begun yet."""
        written = self._pid_file.read_text() if self._pid_file.is_file() else ""
        return int(written) if written else None

    def progress_log(self) -> ProgressLog:
        """The log to which the job's events are appended."""
        return ProgressLog(self._progress_file)

    def progress_tail(self) -> ProgressTail:
        """A reader of the job's events from the first one on."""
        return ProgressTail(self._progress_file)

    def events(self) -> list[JobEvent]:
        """All events so far; none where there is no file."""
        return self.progress_tail().read()

    def output(self) -> str:
        """The end of what the job's process wrote to its output; "" where it wrote nothing.

        At most `LOG_BYTES` of it. Bars of progress are left as their last state.
        """
        if not self.output_file.is_file():
            return ""
        with self.output_file.open("rb") as file:
            file.seek(max(0, self.output_file.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
        return "\n".join(line.rpartition("\r")[2] for line in text.split("\n")).strip()

    # The end

    def mark_cancelled(self) -> None:
        """Mark that somebody asked the job to stop."""
        self._cancelled_file.touch()

    @property
    def is_cancelled(self) -> bool:
        """Return whether somebody asked the job to stop."""
        return self._cancelled_file.is_file()

    def finish(self, bundle: str) -> None:
        """Record that the job made a bundle."""
        self._write_result({"state": "done", "bundle": bundle})

    def fail(self, error: str) -> None:
        """Record that the job failed, with the reason as the operator reads it."""
        self._write_result({"state": "failed", "error": error})

    def result(self) -> dict[str, Any]:
        """The recorded end: its `state`, and `bundle` or `error`; empty where there is none."""
        return _read(self._result_file) if self._result_file.is_file() else {}

    def _write_result(self, result: dict[str, Any]) -> None:
        write_atomically(self._result_file, json.dumps(result).encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise BurnishError(f"{path} is damaged; delete its folder to forget the job") from error
