"""The console's tab on tuning: what is shown of a job, and what its buttons do to it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import psutil
import pytest

from app.settings import Settings
from app.ui.tuning_console import POINTS, JobsState, TuningPage
from app.workspace import Workspace
from feedback_store.snapshots.snapshot import Snapshot, Split
from tests.support.jobs import pid_of
from tests.support.pairs import row
from tests.support.waiting import wait_until
from tuning.jobs.events import (
    JobEvent,
    JobStarted,
    SearchDone,
    SearchLeftOut,
    StepDone,
    TrialScored,
)
from tuning.jobs.progress import ProgressLog
from tuning.jobs.runner import JobRunner
from tuning.recipe import Recipe
from tuning.recipe_sections import SearchRecipe
from tuning.search import choose_slice

pytestmark = pytest.mark.integration
ENGLISH = cast(gr.Request, SimpleNamespace(headers={"accept-language": "en"}))
SNAPSHOTS = [f"sha256:{number:064}" for number in range(2)]


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """A home without an engine."""
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


def start(workspace: Workspace, snapshot: str = SNAPSHOTS[0]) -> str:
    return workspace.jobs.start(
        base_name="base",
        base_digest="sha256:base",
        snapshot=snapshot,
        recipe=Recipe(),
        recipe_origins={},
    )


def report(workspace: Workspace, job: str, *events: JobEvent) -> None:
    log = ProgressLog(workspace.jobs.folder(job) / "progress.jsonl")
    for event in events:
        log(event)


def step(
    stage: str, number: int, *, of: int = 10, loss: float | None = None, **metrics: float
) -> StepDone:
    return StepDone(
        stage=stage,
        step=number,
        steps=of,
        seconds=1.0 * number,
        eta_seconds=90.0,
        memory_bytes=1_500_000_000,
        peak_memory_bytes=2_000_000_000,
        tokens_per_second=310.4,
        **{"loss": 1.0 / number if loss is None else loss, **metrics},
    )


BEGUN = JobStarted(pid=1, threads=3, priority="idle")
JUDGED: dict[str, Any] = {
    "reward_accuracy": 0.75,
    "reward_margin": 0.5,
    "reward_chosen": 0.25,
    "reward_rejected": -0.25,
}


def page_of(workspace: Workspace) -> TuningPage:
    """The tab where resuming a job is all that is asked for."""
    return TuningPage(workspace, workspace.jobs.resume)


def shown(
    workspace: Workspace, view: JobsState | None = None, request: gr.Request = ENGLISH
) -> dict[str, Any]:
    names = [
        *("view", "jobs", "loss", "accuracy", "rewards", "facts", "cancel", "resume"),
        *("search", "evaluation", "log", "has_loss", "has_accuracy", "has_rewards", "about"),
        "none",
    ]
    found = page_of(workspace).refresh(view if view is not None else JobsState(), request)
    shown = dict(zip(names, found, strict=True))
    values = {name: shown[name].get("value") for name in ("jobs", "loss", "accuracy", "rewards")}
    return {**shown, **values}


def fail(workspace: Workspace, job: str, reason: str) -> None:
    """End a played job as a worker does that failed."""
    workspace.jobs.cancel(job)
    for _ in workspace.jobs.wait(job, poll_seconds=0.01):
        pass
    document = {"state": "failed", "error": reason}
    (workspace.jobs.folder(job) / "result.json").write_text(json.dumps(document))


def test_a_home_without_jobs_shows_none_and_no_button_can_be_pressed(workspace: Workspace) -> None:
    page = shown(workspace)
    assert (page["jobs"], page["loss"], page["facts"]) == (None, None, "")
    assert page["none"]["visible"] is True  # the words that say what comes next
    assert not any(page[name]["visible"] for name in ("has_loss", "has_rewards", "about"))
    assert [page[name]["interactive"] for name in ("cancel", "resume")] == [False, False]


@pytest.mark.usefixtures("scripted_jobs")
def test_the_parts_of_each_kind_of_evidence_and_the_search_are_shown(workspace: Workspace) -> None:
    job = start(workspace)
    parts: dict[str, Any] = {
        "pair_loss": 0.61,
        "pair_gradient_share": 0.7,
        "judgement_loss": 0.5,
        "judgement_gradient_share": 0.3,
    }
    trials = [
        TrialScored(learning_rate=rate, step=6, loss=loss, reward_accuracy=0.75)
        for rate, loss in ((5e-5, 0.68), (1e-4, 0.62), (1e-4, 0.63))
    ]
    done = SearchDone(learning_rate=1e-4, step=6, steps=24)
    report(workspace, job, BEGUN, step("joint 0.0001", 6, **parts), *trials, done)
    facts = shown(workspace)["facts"].splitlines()
    assert facts[-6:] == [
        "memory: 1.4 GiB, at most 1.9 GiB",
        "pairs: loss 0.610, 70% of the gradient",
        "thumbs: loss 0.500, 30% of the gradient",
        "tried 5e-05, step 6: loss 0.680, accuracy 0.75 on what is held back",
        "tried 0.0001, step 6: loss 0.630, accuracy 0.75 on what is held back",  # once, resumed
        "chosen: learning rate 0.0001, step 6 of 24",
    ]


@pytest.mark.usefixtures("scripted_jobs")
def test_the_curve_of_a_search_is_drawn_by_learning_rate(workspace: Workspace) -> None:
    job = start(workspace)
    report(workspace, job, BEGUN, step("joint 5e-05", 6))
    assert shown(workspace)["search"]["visible"] is False
    for rate, at, loss in ((5e-5, 6, 0.68), (1e-4, 6, 0.6), (1e-4, 6, 0.62), (1e-4, 12, 0.5)):
        report(workspace, job, TrialScored(learning_rate=rate, step=at, loss=loss))
    search = shown(workspace)["search"]
    assert search["visible"] is True
    assert search["value"].values.tolist() == [
        [6, 0.68, "5e-05"],
        [6, 0.62, "0.0001"],  # scored again when it was resumed
        [12, 0.5, "0.0001"],
    ]


@pytest.mark.usefixtures("scripted_jobs")
def test_a_cancelled_job_is_stopping_at_once(workspace: Workspace) -> None:
    page, view, job = page_of(workspace), JobsState(), start(workspace)
    pid_of(workspace.jobs, job)
    page.refresh(view, ENGLISH)
    with stopped(workspace.jobs, job):  # its process hears of it later, as on a busy machine
        page.cancel(view, ENGLISH)
        found = shown(workspace, view)
        assert found["jobs"]["state"].tolist() == ["stopping"]
        assert "state: stopping" in found["facts"].splitlines()
        assert found["cancel"]["interactive"] is False


@pytest.mark.usefixtures("scripted_jobs")
def test_a_job_that_gets_no_processor_time_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(workspace)
    page = page_of(workspace)
    monkeypatch.setattr(page._watch, "is_waiting", lambda pid: pid == pid_of(workspace.jobs, job))
    pid_of(workspace.jobs, job)
    _, table, *_ = page.refresh(JobsState(), ENGLISH)
    assert table["value"]["state"].tolist() == ["waiting for a free processor"]


@pytest.mark.usefixtures("scripted_jobs")
def test_the_log_and_the_evaluation_of_a_job_are_a_click_away(workspace: Workspace) -> None:
    job, view = start(workspace), JobsState()
    (workspace.jobs.folder(job) / "log.txt").write_text("loading the model\n")
    page = shown(workspace, view)
    assert page["log"] == {"value": "loading the model", "visible": True, "__type__": "update"}
    assert page["evaluation"]["visible"] is False
    assert "value" not in shown(workspace, view)["log"]  # not sent again
    bundle = "sha256:" + "b" * 64
    workspace.jobs.cancel(job)
    for _ in workspace.jobs.wait(job, poll_seconds=0.01):
        pass
    done = json.dumps({"state": "done", "bundle": bundle})
    (workspace.jobs.folder(job) / "result.json").write_text(done)
    workspace.registry.add(bundle, {"verdict": "better", "evaluation": "sha256:" + "e" * 64})
    link = shown(workspace, view)["evaluation"]
    assert (link["visible"], link["link"]) == (True, "evaluations/" + "e" * 64)


@contextmanager
def stopped(jobs: JobRunner, job: str) -> Iterator[None]:
    """A job's process that does nothing meanwhile, so that it hears no signal."""
    pid = pid_of(jobs, job)
    os.kill(pid, signal.SIGSTOP)
    # Of two signals that wait, the lower one comes first: SIGTERM would before it has stopped
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("scripted_jobs")
@pytest.mark.parametrize(
    ("language", "expected"), [("en", "are wanted: the recipe's own"), ("zh", "按配方自己的学习率")]
)
def test_a_search_that_is_left_out_says_why(
    workspace: Workspace, language: str, expected: str
) -> None:
    job = start(workspace)
    left_out = choose_slice_of(["a", "b", "c"])
    report(workspace, job, BEGUN, SearchLeftOut(reason=left_out))
    request = cast(gr.Request, SimpleNamespace(headers={"accept-language": language}))
    assert expected in shown(workspace, request=request)["facts"]


def choose_slice_of(conversations: Sequence[str]) -> str:
    """The reason why so few conversations have no slice."""
    pairs = [row(name, "Yes.", "No.", conversation=name) for name in conversations]
    snapshot = Snapshot("sha256:x", {}, Split(tuple(pairs)), Split(), Split())
    return choose_slice(snapshot, SearchRecipe(rates=4), seed=0).reason


@pytest.mark.usefixtures("scripted_jobs")
def test_a_running_job_shows_its_curves_and_figures(workspace: Workspace) -> None:
    job = start(workspace)
    steps = step("sft", 1), step("sft", 2), step("dpo", 1, **JUDGED), step("dpo", 4, **JUDGED)
    report(workspace, job, BEGUN, *steps)
    page = shown(workspace)
    (row,) = page["jobs"].values.tolist()
    assert [*row[:2], *row[3:]] == [job[7:19], "running", "dpo", "4/10", "0.250", "1.5", ""]
    assert page["loss"].values.tolist() == [
        [1.0, 1.0, "sft"],
        [2.0, 0.5, "sft"],
        [1.0, 1.0, "dpo"],
        [4.0, 0.25, "dpo"],
    ]
    assert page["accuracy"].values.tolist() == [[1.0, 0.75, "dpo"], [4.0, 0.75, "dpo"]]
    assert page["rewards"].values.tolist()[3:] == [
        [4.0, 0.25, "chosen"],
        [4.0, -0.25, "rejected"],
        [4.0, 0.5, "margin"],
    ]
    assert page["facts"].splitlines()[1:] == [
        "state: running",
        "threads: 3, priority idle",
        "step: dpo 4/10, 90 s left in this stage",
        "speed: 310 tokens/s",
        "memory: 1.4 GiB, at most 1.9 GiB",
    ]
    assert [page[name]["interactive"] for name in ("cancel", "resume")] == [True, False]


@pytest.mark.usefixtures("scripted_jobs")
def test_a_job_is_described_in_chinese_to_who_reads_chinese(workspace: Workspace) -> None:
    job = start(workspace)
    report(workspace, job, BEGUN, step("dpo", 4, **JUDGED))
    request = cast(gr.Request, SimpleNamespace(headers={"accept-language": "zh-CN"}))
    page = shown(workspace, request=request)
    assert list(page["jobs"])[:3] == ["任务", "状态", "开始时间"]
    assert page["jobs"]["状态"].tolist() == ["运行中"]
    assert set(page["rewards"]["of"]) == {"优选", "拒选", "差值"}
    assert page["facts"].splitlines()[1:] == [
        "状态：运行中",
        "线程：3，优先级 空闲",
        "进度：dpo 4/10，本阶段还需 90 秒",
        "速度：310 词元/秒",
        "内存：1.4 GiB，峰值 1.9 GiB",
    ]


@pytest.mark.usefixtures("scripted_jobs")
def test_a_step_that_was_repeated_after_a_kill_is_one_point(workspace: Workspace) -> None:
    job = start(workspace)
    report(workspace, job, step("sft", 1), step("sft", 2, loss=9.0), step("sft", 2))
    assert shown(workspace)["loss"].values.tolist() == [[1.0, 1.0, "sft"], [2.0, 0.5, "sft"]]


@pytest.mark.usefixtures("scripted_jobs")
def test_a_long_job_keeps_its_shape_and_its_newest_step(workspace: Workspace) -> None:
    job = start(workspace)
    last = 4 * POINTS + 1
    report(workspace, job, *(step("sft", n, of=last) for n in range(1, last + 1)))
    points = shown(workspace)["loss"]["step"].tolist()
    assert len(points) <= POINTS
    assert points[-1] == last
    assert len({b - a for a, b in pairwise(points)}) == 1


@pytest.mark.usefixtures("scripted_jobs")
def test_curves_are_drawn_anew_only_when_there_is_a_new_step(workspace: Workspace) -> None:
    job, view = start(workspace), JobsState()
    report(workspace, job, step("sft", 1))
    assert len(shown(workspace, view)["loss"]) == 1
    assert shown(workspace, view)["loss"] is None
    report(workspace, job, step("sft", 2))
    assert len(shown(workspace, view)["loss"]) == 2


@pytest.mark.usefixtures("scripted_jobs")
def test_the_buttons_cancel_the_job_that_is_shown_and_resume_it(workspace: Workspace) -> None:
    page, view = page_of(workspace), JobsState()
    old = start(workspace)
    fail(workspace, old, "RuntimeError: it broke")
    new = start(workspace, SNAPSHOTS[1])
    page.refresh(view, ENGLISH)
    page.cancel(view, ENGLISH)
    for _ in workspace.jobs.wait(new, poll_seconds=0.01):
        pass
    assert workspace.jobs.get(new).state == "cancelled"

    event = cast(gr.SelectData, SimpleNamespace(row_value=[old[7:19]]))
    _, _, _, _, _, facts, cancel, resume, *_ = page.choose(view, event, ENGLISH)
    assert facts.endswith("error: RuntimeError: it broke")
    assert (cancel["interactive"], resume["interactive"]) == (False, True)
    page.resume(view, ENGLISH)
    assert workspace.jobs.get(old).state == "running"
    view.job = new
    page.refresh(view, ENGLISH)
    with pytest.raises(gr.Error, match="one runs at a time"):
        page.resume(view, ENGLISH)
    with pytest.raises(gr.Error, match="not running"):
        page.cancel(view, ENGLISH)
