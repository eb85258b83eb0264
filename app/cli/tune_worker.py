"""`burnish tune-worker`: do the tuning jobs of other hosts."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from app.cli.common import HomeOption, Json, Model, open_workspace, print_note, print_result
from engine.errors import Conflict, InvalidInput

NO_JOB_SECONDS = 2.0
AFTER_FAULT_SECONDS = 10.0


def tune_worker(
    home: HomeOption = None,
    model: Model = None,
    store: Annotated[
        str | None, typer.Option(help="The URL of the servers' PostgreSQL database.")
    ] = None,
    objects: Annotated[
        str | None, typer.Option(help="Where snapshots and bundles travel: s3://bucket/burnish.")
    ] = None,
    once: Annotated[bool, typer.Option(help="Do one job, if there is one, and end.")] = False,
    as_json: Json = False,
) -> None:
    """Take tuning jobs from the servers' queue and do them here, in a home of this worker's own."""
    from app.settings import load_settings

    given = {"model": model, "database_url": store, "tune_objects": objects}
    settings = load_settings(home=home, **given)
    if settings.tune_objects is None:
        raise InvalidInput("a worker needs --objects, or BURNISH_TUNE_OBJECTS")
    with open_workspace(home, **given) as workspace:
        from deploy.remote_tuning.objects import ObjectStore
        from deploy.remote_tuning.queue import PASSING, TuningQueue
        from deploy.remote_tuning.worker import TuningWorker
        from tuning.jobs.runner import JobRunner

        worker = TuningWorker(
            queue=TuningQueue(workspace.database),
            objects=ObjectStore(settings.tune_objects),
            home=workspace.home,
            base=workspace.base,
            jobs=JobRunner(
                workspace.home,
                settings.model_cache,
                settings.tune_threads,
                nice=settings.tune_nice or 0,  # nobody chats here
            ),
        )
        print_note(as_json, f"waiting for jobs on {workspace.base.name}")
        while True:
            try:
                job = worker.work_once()
            except (*PASSING, Conflict) as error:
                if once:
                    raise
                print(f"tried again in {AFTER_FAULT_SECONDS:.0f} s: {error}", file=sys.stderr)  # noqa: T201
                time.sleep(AFTER_FAULT_SECONDS)
                continue
            if once:
                done = job.id if job else None
                print_result(as_json, {"job": done}, done or "no job waits")
                return
            if job is None:
                time.sleep(NO_JOB_SECONDS)
