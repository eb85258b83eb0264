"""The process that starts a job's processes: `python -m tuning.jobs.launcher JOB_FOLDER CONFIG N`.

It runs `accelerate launch` and lives as long as its processes do. So it holds the job's lease,
which they cannot inherit: torchrun closes what they would, and gives each a session of its own. Its
pid is the job's: SIGTERM makes torchrun end them all. If it is killed, they end themselves
(`tuning.jobs.rank_worker`). Trains nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tuning.distributed import accelerate_arguments
from tuning.jobs.job_folder import JobFolder
from tuning.jobs.worker import yield_to_chat


def main(folder: Path, config: Path, processes: int) -> int:
    """Run the job in a folder; returns the exit status.

    The first process writes the job's result. This one does where that could not: a process was
    killed, or none was started.
    """
    job = JobFolder(folder)
    job.write_pid()
    yield_to_chat(job.spec().nice)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing import SignalException

    try:
        arguments = accelerate_arguments(folder, config, processes)
        launch_command(launch_command_parser().parse_args(arguments))
    except SignalException:
        return 1  # it was told to stop, and its processes are gone
    except Exception as error:  # noqa: BLE001 - the process's edge: the reason must reach the operator
        if not job.result():
            job.fail(_reason(error))
        return 1
    return 0


def _reason(error: Exception) -> str:
    """The error as the operator reads it."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if not isinstance(error, ChildFailedError):
        return f"{type(error).__name__}: {error}"
    rank, failure = error.get_first_failure()
    return f"process {rank} ended with status {failure.exitcode}; log.txt has its last words"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
