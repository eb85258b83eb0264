"""The background work of a running service."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from app.service import Service, Workspace
from app.settings import Settings
from engine.errors import Conflict
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from feedback_store.records import JudgedPair

TEMPLATE = PromptTemplate("plain", "", "", ())


def test_the_loop_runs_on_its_schedule_only_when_enabled(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[Service] = []
    monkeypatch.setattr(Service, "run_round", lambda self: rounds.append(self))
    quiet = Service(Workspace(settings))
    quiet.start()
    assert quiet._scheduler is None
    quiet.close()

    enabled = settings.model_copy(update={"loop_enabled": True, "loop_schedule": "5 4 * * 6"})
    service = Service(Workspace(enabled))
    service.start()
    (job,) = service._scheduler.get_jobs()
    assert (job.next_run_time.hour, job.next_run_time.minute) == (4, 5)
    assert job.next_run_time.strftime("%A") == "Sunday"  # APScheduler counts Monday as 0
    job.modify(next_run_time=job.next_run_time.now(job.next_run_time.tzinfo))
    deadline = time.monotonic() + 10
    while not rounds and time.monotonic() < deadline:
        time.sleep(0.05)
    assert rounds == [service]
    service.close()


def test_tuning_from_the_console_ends_in_a_release_that_is_not_yet_live(
    service: Service,
) -> None:
    """The whole way through a real worker process: pairs in, judged release out."""
    prompts = [(Message("user", f"Question {number}?"),) for number in range(40)]
    service.workspace.store.add_judged_pairs(
        [JudgedPair(prompt, "The sea.", "The cat sat on the warm stone.") for prompt in prompts],
        TEMPLATE,
        "ann",
    )
    service.tune_in_background()
    _wait_for(lambda: service.last_round == "running")
    with pytest.raises(Conflict):
        service.run_round()
    _wait_for(lambda: service.last_round != "running", seconds=240)
    (release,) = service.workspace.registry.list()
    assert service.last_round.startswith(release.bundle[7:19])
    assert service.workspace.registry.live().bundle is None


def _wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
