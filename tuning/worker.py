"""The process of one tuning job: `python -m tuning.worker JOB_FOLDER`.

Writes `progress.jsonl` while it runs and `result.json` as its last act.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.storage import write_atomically
from tuning.jobs import JobSpec

NICENESS = 10  # chat on the same machine comes first


def main(folder: Path) -> int:
    """Run the job in a folder; returns the exit status."""
    os.nice(NICENESS)
    document = json.loads((folder / "manifest.json").read_text())
    document.pop("started_at")
    try:
        result: dict[str, Any] = {"state": "done", "bundle": _run(JobSpec(**document), folder)}
    except Exception as error:  # noqa: BLE001 - the process's edge: the reason must reach the operator
        result = {"state": "failed", "error": f"{type(error).__name__}: {error}"}
    write_atomically(folder / "result.json", json.dumps(result).encode())
    return 0 if result["state"] == "done" else 1


def _run(spec: JobSpec, folder: Path) -> str:
    from engine.errors import Conflict
    from engine.models.catalogue import resolve
    from feedback_store.snapshot import open_snapshot
    from tuning.progress import ProgressLog
    from tuning.recipe import recipe_from_dict
    from tuning.train import TrainingRun, run

    report = ProgressLog(folder / "progress.jsonl")
    report({"event": "started", "pid": os.getpid()})
    home = Path(spec.home)
    base = resolve(spec.base_name, Path(spec.models))
    if base.digest != spec.base_digest:
        raise Conflict("the base model has changed since the job was made")
    return run(
        TrainingRun(
            base=base,
            snapshot=open_snapshot(home / "snapshots", spec.snapshot),
            recipe=recipe_from_dict(spec.recipe),
            recipe_origins=spec.recipe_origins,
            folder=folder,
            bundles=home / "bundles",
        ),
        report,
    )


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # at once: taking torch down takes seconds, and holds the lease
