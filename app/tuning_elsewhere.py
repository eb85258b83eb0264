"""The process of a tuning job that a worker on another host does.

`python -m app.tuning_elsewhere HOME JOB_FOLDER`. Its other settings are in the environment and in
the home, as the server's are.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from app.settings import Settings, load_settings
from engine.home import Home
from tuning.jobs.job_folder import JobFolder


def tuning_elsewhere(settings: Settings) -> Sequence[str] | None:
    """The command of a job's process, which gets the job's folder; None: jobs are done here."""
    if settings.tune_objects is None:
        return None
    return [sys.executable, "-m", "app.tuning_elsewhere", str(settings.home)]


def main(home: Path, folder: Path) -> int:
    """Have the job in a folder done by a worker; returns the exit status."""
    job = JobFolder(folder)
    job.write_pid()
    settings = load_settings(home=home)
    from deploy.releases.registry import Registry
    from deploy.remote_tuning.following import Cancelled, follow_job
    from deploy.remote_tuning.objects import ObjectStore
    from deploy.remote_tuning.queue import TuningQueue
    from feedback_store.storage.database import Database, database_url

    def cancel(*_: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what it does now is not to be interrupted
        raise Cancelled

    database = Database(database_url(Home(home), settings.database_url))
    Registry(database)
    queue, objects = TuningQueue(database), ObjectStore(str(settings.tune_objects))
    signal.signal(signal.SIGTERM, cancel)
    return follow_job(job, queue, objects)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
