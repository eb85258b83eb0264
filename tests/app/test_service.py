"""The background work of a running service."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.triggers.cron import CronTrigger

from app.service import Service
from app.settings import Settings
from app.workspace import Workspace
from deploy.loop import Loop, LoopResult
from engine.adapters.bundle import publish_bundle
from engine.errors import Conflict, InvalidBundle, StorageFull
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.modes import PromptTemplate
from engine.storage import folder_of
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn
from tests.helpers import answer, make_bundle
from tests.support.waiting import wait_until

TEMPLATE = PromptTemplate("plain", "", "", ())


def jobs_by_calendar(service: Service) -> list[Any]:
    """The work of a service at times of the day, not each minute."""
    return [job for job in service.schedules.jobs if isinstance(job.trigger, CronTrigger)]


def test_the_loop_looks_at_the_times_of_its_schedule_only_when_enabled(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def run(loop: Loop, *_: object, **__: object) -> LoopResult:
        looked.append("looked")
        return LoopResult(ran=False, reason="not enough")

    monkeypatch.setattr(Loop, "run", run)
    for enabled in (False, True):
        values = {"loop_enabled": enabled, "loop_schedule": "5 4 * * 6"}  # Sundays: 0 is Monday
        service = Service(Workspace(settings.model_copy(update=values)))
        service.rounds.tick()
        assert looked == []  # a server that starts waits for the next time
        service.workspace.loop._looked_at -= 8 * 24 * 3600
        service.rounds.tick()
        service.rounds.tick()
        assert len(looked) == enabled
        assert service.rounds.last == ("not enough" if enabled else "none yet")
        service.close()


def test_what_is_older_than_the_operator_keeps_is_forgotten_at_the_start_and_each_day(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[Workspace] = []
    monkeypatch.setattr(Workspace, "forget_old", lambda self: forgotten.append(self))
    service = Service(Workspace(settings.model_copy(update={"retention_days": 30})))
    service.start()
    (job,) = jobs_by_calendar(service)
    service.close()
    assert forgotten == [service.workspace]
    fires = [job.trigger.get_next_fire_time(None, job.next_run_time)]
    fires.append(job.trigger.get_next_fire_time(fires[0], fires[0] + timedelta(seconds=1)))
    assert (fires[1] - fires[0]).days == 1


def test_a_service_that_cannot_start_says_why_and_closes(settings: Settings) -> None:
    service = Service(Workspace(settings))
    with service.workspace.database.read() as connection:  # the one pooled connection
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(StorageFull, match="readonly"):
        service.start()
    service.close()


@pytest.mark.slow  # the same by commands: tests/app/cli/test_commands.py
def test_tuning_from_the_console_ends_in_a_release_that_is_not_yet_live(service: Service) -> None:
    """The whole way through a real worker process: pairs in, judged release out."""
    answers = ImportedAnswer("The sea."), ImportedAnswer("The cat sat on the warm stone.")
    turns = [
        ImportedTurn(
            (Message("user", f"Question {number}?"),),
            answers,
            (ImportedChoice("ann", 0, 1, "left"),),
        )
        for number in range(40)
    ]
    service.workspace.store.add_imported(turns, TEMPLATE, "ann")
    service.rounds.tune("console")
    wait_until(lambda: service.rounds.last == "running")
    with pytest.raises(Conflict):
        service.rounds.run()
    wait_until(lambda: service.rounds.last != "running", seconds=240)
    (release,) = service.workspace.registry.list()
    assert service.rounds.last.startswith(release.bundle[7:19])
    with pytest.raises(Conflict, match="nothing has changed since release"):
        service.rounds.tune("console")
    assert service.workspace.registry.list() == [release]
    assert service.workspace.registry.live().bundle is None


def test_a_model_of_full_fine_tuning_is_served_under_its_bundles_id(
    settings: Settings, tiny_base: BaseModel, tmp_path: Path
) -> None:
    def write(folder: Path) -> None:
        shutil.copytree(tiny_base.folder, folder, dirs_exist_ok=True)
        (folder / "recipe.json").write_text("{}")

    Workspace(settings).close()  # makes the home private
    bundles = Home(settings.home).bundles
    given = {"kind": "model", "base_digest": tiny_base.digest, "snapshot": None}
    bundle = publish_bundle(bundles, write, given)
    service = Service(Workspace(settings.model_copy(update={"model": bundle[:20]})))
    try:
        assert service.workspace.base.folder == folder_of(bundles, bundle)
        answered = answer(service.engine, "Hello!", max_new_tokens=8)
    finally:
        service.close()
    same = Service(Workspace(settings))
    try:
        assert answer(same.engine, "Hello!", max_new_tokens=8) == answered
    finally:
        same.close()
    adapter = make_bundle(bundles, tiny_base)
    refused = Workspace(settings.model_copy(update={"model": adapter}))
    with pytest.raises(InvalidBundle, match="it is an adapter, no model of its own"):
        refused.base  # noqa: B018 - resolved when it is asked for
    refused.close()
