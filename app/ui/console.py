"""The operator's console: an overview of feedback and releases, and the tabs beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import gradio as gr
import pandas as pd

from app.service import Service
from app.texts import language_for, say, translated
from app.ui.blocks import PageBlocks
from app.ui.canary_console import build_canary_card
from app.ui.columns import column_headers
from app.ui.feedback_console import build_training_tab
from app.ui.labels import text
from app.ui.language_choice import build_language_choice
from app.ui.release_changes import ReleaseChanges, actor_of, build_release_changes
from app.ui.settings_console import build_settings_tab
from app.ui.trend_console import build_trend_tab
from app.ui.tuning_console import build_tuning_tab
from app.workspace import Workspace

OVERVIEW_SECONDS = 2.0
RELEASE_COLUMNS = ["release", "live", "origin", "verdict", "gain", "accuracy", "pairs", "made"]
HISTORY_COLUMNS = ["when", "action", "now_live", "before", "note"]


@dataclass(frozen=True, slots=True)
class Overview:
    """The feedback as all consoles show it: counts by kind, and what the loop would do."""

    counts: Mapping[str, int]
    loop_reason: str


class SharedOverview:
    """The overview, read once for all open consoles and for what one of them shows at a time.

    Reading it brings the training set up to date, of which once in `OVERVIEW_SECONDS` is enough.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._read: tuple[float, Overview] | None = None

    def read(self) -> Overview:
        """Return the overview, at most `OVERVIEW_SECONDS` old."""
        with self._lock:
            now = time.monotonic()
            if self._read is None or now - self._read[0] >= OVERVIEW_SECONDS:
                status = self._workspace.loop_status()  # brings the training set up to date
                examples = self._workspace.training_set.summary()
                counts = self._workspace.store.counts() | {
                    place: examples.count(place) for place in examples.counts
                }
                self._read = now, Overview(counts, status.reason)
            return self._read[1]


class ConsolePage:
    """The event handlers of the page, on one running service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._workspace = service.workspace
        self._overview = SharedOverview(service.workspace)

    def feedback(self, language: str) -> pd.DataFrame:
        """Return the counts of feedback and of training examples."""
        counts = self._overview.read().counts
        what, count = column_headers("counts", ("what", "count"), language)
        names = [say(f"console.counts.{name}", language) for name in counts]
        return pd.DataFrame({what: names, count: list(counts.values())})

    def releases(self, language: str) -> pd.DataFrame:
        """Return the releases, the newest first."""
        live = self._workspace.registry.live().bundle
        rows = [
            [
                release.bundle[7:19],
                "●" if release.bundle == live else "",
                say(f"console.origins.{release.origin}", language),
                translated(release.report["verdict"], language),
                *_figures(release.report),
                _when(release.created_at),
            ]
            for release in self._workspace.registry.list()
        ]
        return pd.DataFrame(
            rows, columns=column_headers("release_columns", RELEASE_COLUMNS, language)
        )

    def history(self, language: str) -> pd.DataFrame:
        """Return every change of the live release."""
        rows = [
            [
                _when(c.at),
                translated(c.action, language),
                _short(c.bundle, language),
                _short(c.previous, language),
                translated(c.note, language),
            ]
            for c in self._workspace.registry.history()
        ]
        return pd.DataFrame(
            rows, columns=column_headers("history_columns", HISTORY_COLUMNS, language)
        )

    def status(self, language: str) -> str:
        """Return one line: the live release, the loop's next action, the last round's result.

        An error of a round may quote a file, so it is shown as text, never as HTML or Markdown.
        """
        return say(
            "console.overview.status",
            language,
            live=_short(self._workspace.registry.live().bundle, language),
            loop=translated(self._overview.read().loop_reason, language),
            round=translated(self._service.rounds.last, language),
        )

    def refresh(self, offered: list[str], request: gr.Request) -> tuple[Any, ...]:
        """Return updates of all widgets; `offered` are the releases in the drop-down list.

        The list is updated only if it has changed, since it may be open.
        """
        language = language_for(request)
        names = [release.bundle[7:19] for release in self._workspace.registry.list()]
        choices = gr.skip() if names == offered else gr.update(choices=names)
        waiting = self._workspace.comparison_queue.counts()["waiting"]
        drafts = self._workspace.drafts.count_waiting()
        return (
            self.status(language),
            gr.update(value=say("console.overview.compare", language, count=waiting)),
            gr.update(value=say("console.overview.drafts", language, count=drafts)),
            self.feedback(language),
            self.releases(language),
            self.history(language),
            choices,
            names,
        )


def build_console_page(service: Service) -> gr.Blocks:
    """Return the page with its tabs."""
    with PageBlocks(title="Burnish console", fill_width=True) as blocks:
        with gr.Tab(text("console.tabs.overview")):
            _build_overview(service, blocks)
        with gr.Tab(text("console.tabs.releases")):
            build_trend_tab(service.workspace, blocks)
        with gr.Tab(text("console.tabs.training_data")) as training_data:
            build_training_tab(service.workspace, training_data)
        with gr.Tab(text("console.tabs.tuning")):
            build_tuning_tab(service.workspace, blocks, service.rounds.resume_job)
        with gr.Tab(text("console.tabs.settings")):
            build_settings_tab(service.workspace.settings, blocks)
        build_language_choice(blocks, "console.title")
    return blocks  # type: ignore[no-any-return]  # gradio types its context manager as Any


def _build_overview(service: Service, blocks: gr.Blocks) -> None:
    """Build the overview, which is refreshed on a timer."""
    page = ConsolePage(service)
    status = gr.Textbox(
        interactive=False, show_label=False, container=False, max_lines=4, elem_id="status"
    )
    # Links relative to the console's own address, so that they hold behind a path prefix
    with gr.Row():
        compare = gr.Button("…", link="compare", size="sm", elem_id="compare")
        drafts = gr.Button("…", link="drafts", size="sm", elem_id="drafts")
    with gr.Row():
        with gr.Column(scale=1):
            feedback = gr.Dataframe(
                label=text("console.overview.feedback"),
                interactive=False,
                elem_id="feedback",
                column_widths=["65%", "35%"],
            )
            tune = gr.Button(text("console.overview.tune"), variant="primary", elem_id="tune")
        with gr.Column(scale=3):
            releases = gr.Dataframe(
                label=text("console.overview.releases"), interactive=False, elem_id="releases"
            )
    with gr.Row(equal_height=True):
        chosen = gr.Dropdown([], label=text("console.overview.release"), elem_id="release")
        force = gr.Checkbox(label=text("console.overview.force"), elem_id="force")
        promote = gr.Button(text("console.overview.promote"), variant="primary", elem_id="promote")
        rollback = gr.Button(text("console.overview.rollback"), variant="stop", elem_id="rollback")
    build_release_changes(
        ReleaseChanges(service),
        chosen=chosen,
        force=force,
        buttons={"promote": promote, "rollback": rollback, "tune": tune},
    )
    build_canary_card(service, blocks, chosen, actor_of)
    history = gr.Dataframe(
        label=text("console.overview.history"), interactive=False, elem_id="history"
    )

    offered = gr.State([])
    shown: Any = [status, compare, drafts, feedback, releases, history, chosen, offered]
    hidden: Any = {"api_visibility": "private"}
    quiet: Any = {"show_progress": "hidden", **hidden}
    blocks.load(page.refresh, [offered], shown, **hidden)
    gr.Timer(OVERVIEW_SECONDS).tick(page.refresh, [offered], shown, **quiet)


def _figures(report: Mapping[str, Any]) -> tuple[str, str, str]:
    """Gain, accuracies and pairs of a gate's report; empty before it has judged."""
    if "gain" not in report:
        return "", "", ""
    accuracies = (report[f"{role}_accuracy"] for role in ("incumbent", "candidate"))
    return (
        f"{report['gain']['estimate']:+.2f}",
        " → ".join(f"{accuracy:.2f}" for accuracy in accuracies),
        str(report["pairs"]),
    )


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _short(bundle: str | None, language: str) -> str:
    return bundle[7:19] if bundle else say("console.overview.base", language)
