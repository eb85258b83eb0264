"""The operator's console: the desk with what is done from it, and the tabs beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd

from app.html.desk import desk_html, head_html, lineage_html
from app.html.desk_words import DeskWords
from app.html.release_names import release_name
from app.learning.desk import Desk, DeskReader
from app.service import Service
from app.texts import language_for, say, translated
from app.ui.blocks import PageBlocks
from app.ui.canary_console import build_canary_card
from app.ui.columns import column_headers
from app.ui.feedback_console import build_training_tab
from app.ui.labels import text
from app.ui.language_choice import build_language_choice
from app.ui.model_console import build_model_tab
from app.ui.release_changes import ReleaseChanges, actor_of, build_question, connect_acts
from app.ui.settings_console import build_settings_tab
from app.ui.side_by_side import build_side_by_side
from app.ui.training_form import build_training_form
from app.ui.trend_console import build_trend_tab
from app.ui.tuning_console import build_tuning_tab
from engine.storage import short_id
from engine.units import local_minute

REFRESH_SECONDS = 4.0
RELEASE_COLUMNS = ["release", "live", "origin", "verdict", "gain", "accuracy", "pairs", "made"]
HISTORY_COLUMNS = ["when", "action", "now_live", "before", "note"]


class PossibleChanges(NamedTuple):
    """The possible changes: there is a release, one waits, the live one can be taken back."""

    some: bool
    promotion_waits: bool
    can_roll_back: bool


class Drawn(NamedTuple):
    """The parts of the desk that one browser tab shows."""

    desk: str
    lineage: str
    changes: PossibleChanges


class ConsolePage:
    """The event handlers of the page, on one running service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._workspace = service.workspace
        self.desk = DeskReader(service.workspace)

    def feedback(self, language: str) -> pd.DataFrame:
        """Return the counts of feedback and of training examples."""
        counts = self.desk.read().counts
        what, count = column_headers("counts", ("what", "count"), language)
        names = [say(f"console.counts.{name}", language) for name in counts]
        return pd.DataFrame({what: names, count: list(counts.values())})

    def releases(self, language: str) -> pd.DataFrame:
        """Return the releases, the newest first."""
        live = self._workspace.registry.live().bundle
        rows = [
            [
                short_id(release.bundle),
                "●" if release.bundle == live else "",
                say(f"console.origins.{release.origin}", language),
                translated(release.report["verdict"], language),
                *_figures(release.report),
                local_minute(release.created_at),
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
                local_minute(c.at),
                translated(c.action, language),
                release_name(c.bundle, language),
                release_name(c.previous, language),
                translated(c.note, language),
            ]
            for c in self._workspace.registry.history()
        ]
        return pd.DataFrame(
            rows, columns=column_headers("history_columns", HISTORY_COLUMNS, language)
        )

    def status(self, language: str) -> str:
        """Return one line: the live release, and the result of this server's last round.

        An error of a round may quote a file, so it is shown as text, never as HTML or Markdown.
        """
        return say(
            "console.overview.status",
            language,
            live=release_name(self._workspace.registry.live().bundle, language),
            round=translated(self._service.rounds.last, language),
        )

    def refresh(
        self, offered: list[str], drawn: Drawn | None, request: gr.Request
    ) -> tuple[Any, ...]:
        """Return updates of all widgets.

        `offered` are the releases in the drop-down list, which is updated only if it has changed,
        since it may be open; `drawn` is what is shown, of which stays what has not changed.
        """
        language = language_for(request)
        names = [short_id(release.bundle) for release in self._workspace.registry.list()]
        choices = gr.skip() if names == offered else gr.update(choices=names)
        desk = self.desk.read()
        words = DeskWords(desk, language, time.time())
        drawing = Drawn(
            desk_html(words, self._service.engine.active_streams),
            lineage_html(words),
            possible_changes(desk),
        )
        before = drawn or (None, None, None)
        same = [new == old for new, old in zip(drawing, before, strict=True)]
        return (
            gr.skip() if same[0] else drawing.desk,
            gr.skip() if same[1] else drawing.lineage,
            drawing,
            *([gr.skip()] * 3 if same[2] else _change_updates(drawing.changes)),
            self.status(language),
            self.feedback(language),
            self.releases(language),
            self.history(language),
            choices,
            names,
        )


def build_console_page(service: Service) -> gr.Blocks:
    """Return the page with its tabs."""
    with PageBlocks(title="Burnish console", fill_width=True) as blocks:
        with gr.Row(elem_id="head"):
            head = gr.HTML(apply_default_css=False, padding=False)
            build_language_choice(blocks, "console.title")
        blocks.load(_head, None, [head], show_progress="hidden", api_visibility="private")
        # Tabs that a phone has no room for stand in a second row, instead of in a menu of dots
        with gr.Tabs(overflow_behavior="wrap"):
            _build_tabs(service, blocks)
    return blocks  # type: ignore[no-any-return]  # gradio types its context manager as Any


def _head(request: gr.Request) -> str:
    return head_html(language_for(request))


def possible_changes(desk: Desk) -> PossibleChanges:
    """Return what can be done to the live release."""
    waits = any(need.kind in ("candidate", "canary") for need in desk.needs)
    return PossibleChanges(bool(desk.releases), waits, desk.live is not None)


def _change_updates(changes: PossibleChanges) -> list[Any]:
    """Return the updates of the part with the buttons, of Promote and of Roll back.

    The accent is for what waits to be done.
    """
    variant = "primary" if changes.promotion_waits else "secondary"
    return [
        gr.update(visible=changes.some),
        gr.update(variant=variant),
        gr.update(interactive=changes.can_roll_back),
    ]


def _build_tabs(service: Service, blocks: gr.Blocks) -> None:
    """Build what each tab shows."""
    with gr.Tab(text("console.tabs.overview")):
        _build_overview(service, blocks)
    with gr.Tab(text("console.tabs.releases")):
        build_trend_tab(service.workspace, blocks)
        build_side_by_side(service, blocks)
    with gr.Tab(text("console.tabs.training_data")) as training_data:
        build_training_tab(service.workspace, training_data)
    with gr.Tab(text("console.tabs.tuning")):
        build_training_form(service, blocks)
        build_tuning_tab(service.workspace, blocks, service.rounds.resume_job)
    with gr.Tab(text("console.tabs.model")):
        build_model_tab(service.workspace.settings, blocks)
    with gr.Tab(text("console.tabs.settings")):
        build_settings_tab(service.workspace.settings, blocks)


def _build_overview(service: Service, blocks: gr.Blocks) -> None:
    """Build the overview, which is refreshed on a timer: the desk, what is done, the tables."""
    page = ConsolePage(service)
    desk = gr.HTML(elem_id="desk", apply_default_css=False)
    with gr.Row():
        tune = gr.Button(text("console.overview.tune"), elem_id="tune", scale=0, min_width=160)
        round_ = gr.Button(text("console.overview.round"), elem_id="round", scale=0, min_width=160)
        status = gr.Textbox(
            interactive=False, show_label=False, container=False, max_lines=4, elem_id="status"
        )
    lineage = gr.HTML(elem_id="lineage", apply_default_css=False)
    with gr.Column(visible=False) as changes, gr.Row(elem_id="act"):
        chosen = gr.Dropdown([], label=text("console.overview.release"), elem_id="release")
        force = gr.Checkbox(label=text("console.overview.force"), elem_id="force")
        promote = gr.Button(
            text("console.overview.promote"), elem_id="promote", scale=0, min_width=160
        )
        rollback = gr.Button(
            text("console.overview.rollback"), elem_id="rollback", scale=0, min_width=160
        )
    question = build_question()
    with changes:
        card, decide = build_canary_card(service, blocks, chosen, page.desk, actor_of)

    def forget() -> None:
        page.desk.forget()
        card.forget()

    buttons = {"promote": promote, "rollback": rollback, "tune": tune, "round": round_, **decide}
    acts = ReleaseChanges(service, forget)
    connect_acts(acts, question, chosen=chosen, force=force, buttons=buttons)
    releases = _table("releases")
    history = _table("history")
    feedback = _table("feedback")

    offered, drawn = gr.State([]), gr.State(None)
    shown: Any = [
        desk,
        lineage,
        drawn,
        changes,
        promote,
        rollback,
        status,
        feedback,
        releases,
        history,
        chosen,
        offered,
    ]
    hidden: Any = {"api_visibility": "private"}
    quiet: Any = {"show_progress": "hidden", **hidden}
    blocks.load(page.refresh, [offered, drawn], shown, **hidden)
    gr.Timer(REFRESH_SECONDS).tick(page.refresh, [offered, drawn], shown, **quiet)


def _table(name: str) -> gr.Dataframe:
    """Return a table of details, folded away under its title."""
    with gr.Accordion(text(f"console.overview.{name}"), open=False):
        return gr.Dataframe(interactive=False, show_label=False, elem_id=name)


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
