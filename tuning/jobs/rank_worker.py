"""One of several processes of a job, as `tuning.jobs.launcher` starts them.

The first does all that `tuning.jobs.worker` does: it writes the job's files and publishes. The
others train with it and write nothing. Each ends once the launcher, which holds the job's lease, is
gone; otherwise it would train beside the next job.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import torch

from tuning.distributed import join_processes
from tuning.jobs import worker
from tuning.jobs.job_folder import JobFolder
from tuning.train import run

PARENT_POLL_SECONDS = 0.2  # far less than a new job takes to import torch


def main(folder: Path) -> int:
    """Run this process's part of the job in a folder; returns the exit status."""
    job = JobFolder(folder)
    threading.Thread(target=_end_with, args=(job.pid(),), daemon=True).start()
    if join_processes():
        return worker.work(folder)
    spec = job.spec()
    worker.yield_to_chat(spec.nice)
    torch.set_num_threads(spec.threads_each)
    run(worker.training_run(spec, folder), lambda event: None)
    return 0


def _end_with(launcher: int | None) -> None:
    """End this process once its parent is not, or no longer, the job's launcher."""
    while os.getppid() == launcher:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # as tuning.jobs.worker does
