"""The console's tab on tuning: jobs, the curves and figures of one, cancel and resume.

An error's text may quote a file, so it is shown as text, never as HTML or Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from app.texts import DEFAULT, language_for, say, translated
from app.ui.columns import column_headers
from app.ui.errors import report_errors
from app.ui.job_facts import job_facts, last_steps
from app.ui.labels import text
from app.web.evaluation_page import evaluation_link
from app.workspace import Workspace
from engine.storage import find_digest, short_id
from engine.units import local_minute
from tuning.jobs.events import JobEvent, StepDone, TrialScored
from tuning.jobs.processor_time import ProcessorWatch
from tuning.jobs.runner import Job

CURVES_SECONDS = 2.0
JOB_COLUMNS = ["job", "state", "started", "stage", "step", "loss", "minutes_left", "result"]
JOBS_SHOWN = 20
POINTS = 300  # per curve; more cannot be distinguished on a screen
PLOT_PIXELS = 320
# By plot: the vertical axis, and the column that tells its lines apart
Y = {"loss": "loss", "accuracy": "accuracy", "rewards": "reward", "search": "loss"}
COLOR = {"loss": "stage", "accuracy": "stage", "rewards": "of", "search": "rate"}
CURVES = ("loss", "accuracy", "rewards")
REWARDS = {"chosen": "reward_chosen", "rejected": "reward_rejected", "margin": "reward_margin"}
STOPPED = ("cancelled", "interrupted", "failed")

Resume = Callable[[str], object]  # takes a job's id


@dataclass
class JobsState:
    """The state of one browser tab."""

    job: str | None = None  # the chosen one; None is the newest
    drawn: tuple[str, int, int] | None = None  # the job, its steps and scores in the curves
    logged: str | None = None  # the log that is shown


class TuningPage:
    """The event handlers of the tab, on one workspace; `resume` resumes a job."""

    def __init__(self, workspace: Workspace, resume: Resume) -> None:
        self._workspace = workspace
        self._resume = resume
        self._watch = ProcessorWatch()

    def refresh(self, view: JobsState, request: gr.Request) -> tuple[Any, ...]:
        """Return updates of the table, the curves, the figures and the buttons."""
        language = language_for(request)
        jobs = self._workspace.jobs.list()[:JOBS_SHOWN]
        progress = {job.id: self._workspace.jobs.events(job.id) for job in jobs}
        waiting = self._waiting(jobs)
        rows = [_row(job, progress[job.id], job.id in waiting, language) for job in jobs]
        table = pd.DataFrame(rows, columns=column_headers("job_columns", JOB_COLUMNS, language))
        job = next((job for job in jobs if job.id == view.job), jobs[0] if jobs else None)
        if job is None:
            hidden, no_curves = gr.update(visible=False), _curves([], language)
            words = gr.update(visible=True)
            return view, hidden, *no_curves, "", *_buttons(None), *[hidden] * 7, words
        events = progress[job.id]
        steps = last_steps(events)
        trials = [event for event in events if isinstance(event, TrialScored)]
        drawn = job.id, len(steps), len(trials)
        fresh, view.drawn = drawn != view.drawn, drawn
        # A plot blinks when it is redrawn
        curves = _curves(steps, language) if fresh else [gr.skip()] * 3
        search = _search_curve(trials, language) if fresh else gr.skip()
        facts = job_facts(job, events, language, waiting=job.id in waiting)
        return (
            *(view, gr.update(value=table, visible=True), *curves, facts, *_buttons(job)),
            *(search, self._evaluation_link(job), self._log(view, job)),
            *(
                [gr.update(visible=curve["value"] is not None) for curve in curves]
                if fresh
                else [gr.skip()] * 3
            ),
            gr.update(visible=True),
            gr.update(visible=False),
        )

    def choose(self, view: JobsState, event: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Show another job."""
        with report_errors(language_for(request)):
            view.job = find_digest(self._workspace.home.jobs, str(event.row_value[0]))
        return self.refresh(view, request)

    def cancel(self, view: JobsState, request: gr.Request) -> None:
        """Cancel the selected job."""
        with report_errors(language_for(request)):
            self._workspace.jobs.cancel(_displayed_job(view))
        gr.Info(say("console.tuning.cancelled", language_for(request)), duration=3)

    def resume(self, view: JobsState, request: gr.Request) -> None:
        """Resume the selected job from its last checkpoint; its bundle is then evaluated."""
        with report_errors(language_for(request)):
            self._resume(_displayed_job(view))
        gr.Info(say("console.tuning.resumed", language_for(request)), duration=3)

    def _evaluation_link(self, job: Job) -> Any:
        """Return the update of the button that opens the evaluation of a job's bundle."""
        releases = self._workspace.registry.list() if job.bundle else ()
        found = next((each for each in releases if each.bundle == job.bundle), None)
        evaluation = found.report.get("evaluation") if found else None
        return gr.update(visible=evaluation is not None, link=evaluation_link(str(evaluation)))

    def _log(self, view: JobsState, job: Job) -> Any:
        """Return the update of the log, if it has grown."""
        log = self._workspace.jobs.output(job.id)
        if log == view.logged:
            return gr.skip()
        view.logged = log
        return gr.update(value=log, visible=bool(log))

    def _waiting(self, jobs: Sequence[Job]) -> set[str]:
        """Return the ids of the jobs that run and get hardly any processor time."""
        running = [job.id for job in jobs if job.state == "running"]
        return {job for job in running if self._watch.is_waiting(self._workspace.jobs.pid(job))}


def build_tuning_tab(workspace: Workspace, blocks: gr.Blocks, resume_job: Resume) -> None:
    """Build the tab, refreshed on a timer; `resume_job` resumes and evaluates a job."""
    page, view = TuningPage(workspace, resume_job), gr.State(JobsState())
    none = gr.Markdown(text("console.tuning.none"), visible=False, elem_id="no-jobs")
    jobs = gr.Dataframe(
        headers=column_headers("job_columns", JOB_COLUMNS, DEFAULT),
        datatype="str",
        interactive=False,
        label=text("console.tuning.jobs"),
        elem_id="jobs",
        buttons=[],
        visible=False,
    )
    with gr.Row():
        # What has no points is not there: an empty plot says nothing
        columns = [gr.Column(min_width=280, visible=False) for _ in CURVES]
        with columns[0]:
            loss = _plot("loss")
        with columns[1]:
            accuracy = _plot("accuracy", y_lim=[0, 1])
        with columns[2]:
            rewards = _plot("rewards")
    search = _plot("search")
    with gr.Row(visible=False) as about:
        facts = gr.Textbox(
            label=text("console.tuning.job"),
            interactive=False,
            lines=7,
            elem_id="job-facts",
            scale=4,
        )
        with gr.Column(scale=1, min_width=160):
            cancel = gr.Button(text("console.tuning.cancel"), variant="stop", elem_id="cancel-job")
            resume = gr.Button(text("console.tuning.resume"), elem_id="resume-job")
            evaluation = gr.Button(
                text("console.trend.evaluation"), link=".", visible=False, elem_id="job-evaluation"
            )
    log = gr.Textbox(
        label=text("console.tuning.log"),
        interactive=False,
        visible=False,
        max_lines=12,
        elem_id="job-log",
    )

    shown: Any = [view, jobs, loss, accuracy, rewards, facts, cancel, resume]
    shown += [search, evaluation, log, *columns, about, none]
    hidden: Any = {"api_visibility": "private"}
    quiet: Any = {"show_progress": "hidden", **hidden}
    blocks.load(page.refresh, [view], shown, **hidden)
    gr.Timer(CURVES_SECONDS).tick(page.refresh, [view], shown, **quiet)
    jobs.select(page.choose, [view], shown, **quiet)
    for done in (
        cancel.click(page.cancel, [view], None, **hidden),
        resume.click(page.resume, [view], None, **hidden),
    ):
        done.success(page.refresh, [view], shown, **quiet)


def _plot(name: str, *, y_lim: Sequence[float | None] = (None, None)) -> gr.LinePlot:
    """Return a plot over the steps, titled above: a label inside would hide the legend.

    The plot of the search is hidden until there is one, with its title as its label.
    """
    optional = name == "search"
    if not optional:
        gr.Markdown(text(f"console.plots.{name}"))
    plot: gr.LinePlot = gr.LinePlot(
        x="step",
        y=Y[name],
        color=COLOR[name],
        y_lim=list(y_lim),
        color_title="",
        height=PLOT_PIXELS,
        label=text(f"console.plots.{name}"),
        show_label=optional,
        visible=not optional,
        elem_id=name,
    )
    return plot


def _row(job: Job, events: Sequence[JobEvent], waiting: bool, language: str) -> list[str]:
    steps = last_steps(events)
    last = steps[-1] if steps else None
    return [
        short_id(job.id),
        translated(job.described(waiting=waiting), language),
        local_minute(job.started_at),
        last.stage if last else "",
        f"{last.step}/{last.steps}" if last else "",
        f"{last.loss:.3f}" if last else "",
        f"{last.eta_seconds / 60:.1f}" if last and job.state == "running" else "",
        translated(job.error, language) if job.error else short_id(job.bundle or ""),
    ]


def _curves(steps: Sequence[StepDone], language: str) -> list[Any]:
    """Return the curves: loss and accuracy per stage, rewards of the last stage that has any."""
    judged = [e for e in steps if e.reward_margin is not None]
    last = [e for e in judged if e.stage == judged[-1].stage]
    names = {name: say(f"console.rewards.{name}", language) for name in REWARDS}
    points: dict[str, list[Any]] = {
        "loss": [(e.step, e.loss, e.stage) for e in _thinned(steps)],
        "accuracy": [(e.step, e.reward_accuracy, e.stage) for e in _thinned(judged)],
        "rewards": [
            (e.step, getattr(e, key), names[name])
            for e in _thinned(last)
            for name, key in REWARDS.items()
        ],
    }
    return [_curve(points[plot], Y[plot], COLOR[plot], language) for plot in CURVES]


def _search_curve(trials: Sequence[TrialScored], language: str) -> Any:
    """Return the search's curve: the loss on what is held back, by step and learning rate.

    Without a search the plot is not there.
    """
    scored = {(each.learning_rate, each.step): each.loss for each in trials}
    points = [(step, loss, f"{rate:g}") for (rate, step), loss in scored.items()]
    curve = _curve(points, Y["search"], COLOR["search"], language)
    return {**curve, "visible": bool(points)}


def _curve(
    points: Sequence[tuple[float, float, str]], y: str, color: str, language: str
) -> dict[str, Any]:
    """Return the update of a plot: its points and axis titles.

    Without points it has no value: Vega lays out an empty plot over an infinite range, and what is
    drawn into it later stays flat.
    """
    frame = pd.DataFrame(points, columns=["step", y, color]) if points else None
    x_title, y_title = (say(f"console.axes.{axis}", language) for axis in ("step", y))
    update: dict[str, Any] = gr.update(value=frame, x_title=x_title, y_title=y_title)
    return update


def _thinned(steps: Sequence[StepDone]) -> Sequence[StepDone]:
    """Return at most `POINTS` steps, the newest among them."""
    every = max(1, -(-len(steps) // POINTS))
    return steps[::-1][::every][::-1]


def _buttons(job: Job | None) -> tuple[Any, Any]:
    """Return updates of the cancel and resume buttons."""
    can_cancel = job is not None and job.state == "running" and not job.stopping
    can_resume = job is not None and job.state in STOPPED
    # The accent is for what can be done
    accent = "primary" if can_resume else "secondary"
    return (gr.update(interactive=can_cancel), gr.update(interactive=can_resume, variant=accent))


def _displayed_job(view: JobsState) -> str:
    """Return the id of the displayed job; the buttons are disabled if there is none."""
    assert view.drawn is not None, "a button was pressed before a job was shown"
    return view.drawn[0]
