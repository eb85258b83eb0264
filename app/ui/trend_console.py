"""The console's tab on releases: whether it is getting better, and the story of one release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import pandas as pd

from app.texts import language_for, say
from app.ui.labels import text
from app.web.evaluation_page import EVALUATIONS_PATH
from app.workspace import Workspace
from deploy.releases.story import tell_story
from deploy.releases.trend import Trend

TREND_SECONDS = 60.0  # it reads many votes, and changes slowly
TREND_PIXELS = 300
AGAINST = ("before", "base")  # what a release's gain is measured on


class TrendPage:
    """The event handlers of the tab, on one home."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def refresh(self, offered: list[str], request: gr.Request) -> tuple[Any, ...]:
        """Return updates of the plots and the list of releases."""
        language = language_for(request)
        trend = self._workspace.release_trend()
        names = [point.release[7:19] for point in reversed(trend.releases)]
        # The newest one tells its story, until somebody chooses
        first: dict[str, Any] = {"value": names[0]} if names and not offered else {}
        choices = gr.skip() if names == offered else gr.update(choices=names, **first)
        gains, thumbs = gain_points(trend, language), thumb_points(trend, language)
        return (
            gr.update(value=gains, x_title=say("console.axes.release", language)),
            gr.update(value=thumbs, x_title=say("console.axes.day", language)),
            choices,
            names,
        )

    def tell(self, release: str | None) -> tuple[Any, ...]:
        """Return the story of a release, and the link to its evaluation's page."""
        registry = self._workspace.registry
        found = next((r for r in registry.list() if r.bundle[7:19] == release), None)
        if found is None:
            return "", gr.update(visible=False)
        names = {each.id: each.name for each in self._workspace.accounts.list()}
        lines = tell_story(
            registry.events(found.bundle), found.bundle, lambda actor: names.get(actor, actor)
        )
        evaluation = found.report.get("evaluation")
        # Relative to the console's own address, so that it holds behind a path prefix
        link = f"{EVALUATIONS_PATH.rpartition('/')[2]}/{str(evaluation)[7:]}"
        return "\n".join(lines), gr.update(visible=evaluation is not None, link=link)


def gain_points(trend: Trend, language: str) -> pd.DataFrame | None:
    """Return the points of the gains, each with the ends of its interval; None if there are none.

    A line is one measure: the estimate, or an end of the interval, on one of two models.
    """
    rows = []
    for point in trend.releases:
        for against, gain in zip(AGAINST, (point.gain, point.gain_on_base), strict=True):
            if gain is not None:
                name = say(f"console.trend.{against}", language)
                ends = {"low": gain.low, "estimate": gain.estimate, "high": gain.high}
                tick = f"{point.number:02d} {point.release[7:13]}"  # text: ticks in this order
                rows += [
                    (tick, value, say(f"console.trend.{end}", language, of=name))
                    for end, value in ends.items()
                ]
    return pd.DataFrame(rows, columns=["release", "gain", "of"]) if rows else None


def thumb_points(trend: Trend, language: str) -> pd.DataFrame | None:
    """Return the share of thumbs up by day and release; None if there are no thumbs."""
    rows = [
        (
            each.day,
            each.up / (each.up + each.down),
            each.adapter[7:19] if each.adapter else say("console.overview.base", language),
        )
        for each in trend.thumbs
    ]
    return pd.DataFrame(rows, columns=["day", "up", "of"]) if rows else None


def build_trend_tab(workspace: Workspace, blocks: gr.Blocks) -> None:
    """Build the tab, refreshed on a timer."""
    page = TrendPage(workspace)
    with gr.Row():
        with gr.Column(min_width=280):
            gr.Markdown(text("console.trend.gains"))
            gains = _plot("release", "gain", "gains")
        with gr.Column(min_width=280):
            gr.Markdown(text("console.trend.thumbs"))
            thumbs = _plot("day", "up", "thumbs", y_lim=[0, 1])
    chosen = gr.Dropdown([], label=text("console.overview.release"), elem_id="told-release")
    story = gr.Textbox(
        label=text("console.trend.story"), interactive=False, lines=12, elem_id="story"
    )
    evaluation = gr.Button(
        text("console.trend.evaluation"), link=".", visible=False, elem_id="evaluation"
    )
    offered = gr.State([])
    shown: Any = [gains, thumbs, chosen, offered]
    hidden: Any = {"api_visibility": "private"}
    blocks.load(page.refresh, [offered], shown, **hidden)
    gr.Timer(TREND_SECONDS).tick(page.refresh, [offered], shown, show_progress="hidden", **hidden)
    chosen.change(page.tell, [chosen], [story, evaluation], **hidden)


def _plot(x: str, y: str, name: str, y_lim: Sequence[float | None] = (None, None)) -> gr.LinePlot:
    return gr.LinePlot(
        x=x,
        y=y,
        color="of",
        y_lim=list(y_lim),
        color_title="",
        x_label_angle=-30,
        height=TREND_PIXELS,
        show_label=False,
        elem_id=name,
    )
