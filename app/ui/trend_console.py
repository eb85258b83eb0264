"""The console's tab on releases: whether it is getting better, and the story of one release."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.html.gains_plot import gains_html
from app.html.story import story_html
from app.texts import language_for
from app.ui.labels import text
from app.web.evaluation_page import evaluation_link
from app.workspace import Workspace
from deploy.releases.story import tell_story
from deploy.releases.trend import trend_of
from engine.storage import short_id

TREND_SECONDS = 60.0  # it changes slowly


class TrendPage:
    """The event handlers of the tab, on one home."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def refresh(self, offered: list[str], request: gr.Request) -> tuple[Any, ...]:
        """Return updates of the drawing and the list of releases."""
        language = language_for(request)
        registry = self._workspace.registry
        trend = trend_of(registry.record(), registry.live().bundle, ())
        gains = gains_html(trend, language)
        names = [short_id(point.release) for point in reversed(trend.releases)]
        # The newest one tells its story, until somebody chooses
        first: dict[str, Any] = {"value": names[0]} if names and not offered else {}
        choices = gr.skip() if names == offered else gr.update(choices=names, visible=True, **first)
        return (
            gr.update(visible=not gains),
            gr.update(value=gains, visible=bool(gains)),
            choices,
            names,
        )

    def tell(self, release: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Return the story of a release, and the link to its evaluation's page."""
        registry = self._workspace.registry
        found = next((r for r in registry.list() if short_id(r.bundle) == release), None)
        if found is None:
            return "", gr.update(visible=False)
        names = {each.id: each.name for each in self._workspace.accounts.list()}
        lines = tell_story(
            registry.events(found.bundle), found.bundle, lambda actor: names.get(actor, actor)
        )
        evaluation = found.report.get("evaluation")
        link = evaluation_link(str(evaluation))
        return story_html(lines, language_for(request)), gr.update(
            visible=evaluation is not None, link=link
        )


def build_trend_tab(workspace: Workspace, blocks: gr.Blocks) -> None:
    """Build the tab, refreshed on a timer."""
    page = TrendPage(workspace)
    gr.Markdown(text("console.trend.gains"))
    none = gr.Markdown(text("console.trend.none"))
    gains = gr.HTML(elem_id="gains", apply_default_css=False, padding=False)
    chosen = gr.Dropdown(
        [], label=text("console.overview.release"), visible=False, elem_id="told-release"
    )
    story = gr.HTML(elem_id="story", apply_default_css=False, padding=False)
    evaluation = gr.Button(
        text("console.trend.evaluation"), link=".", visible=False, elem_id="evaluation"
    )
    offered = gr.State([])
    shown: Any = [none, gains, chosen, offered]
    hidden: Any = {"api_visibility": "private"}
    blocks.load(page.refresh, [offered], shown, **hidden)
    gr.Timer(TREND_SECONDS).tick(page.refresh, [offered], shown, show_progress="hidden", **hidden)
    chosen.change(page.tell, [chosen], [story, evaluation], **hidden)
