"""The console's tab on models: the one that is served, those that fit, and the fetching of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.model_table import ModelFetch, ModelRow, model_table
from app.settings import Settings
from app.texts import language_for, say, translated
from app.ui.errors import escaped, report_errors
from app.ui.fact_table import Fact, fact_table
from app.ui.labels import text
from engine.units import gib

MODEL_REFRESH_SECONDS = 3.0
FITTING_MODELS, EVERY_MODEL = "fitting", "every"


class ModelPage:
    """The event handlers of the tab, on the settings of one server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fetch = ModelFetch(settings)

    def refresh(self, chosen: str, shown: str, request: gr.Request) -> tuple[Any, ...]:
        """Return updates of the table and of the fetch's progress, if they differ from `shown`."""
        language = language_for(request)
        rows = model_table(self._settings)
        fitting = [row for row in rows if row.fits or chosen == EVERY_MODEL]
        table = fact_table(_facts(fitting, language), "models")
        progress = self._progress(language)
        away = [row.name for row in rows if row.fits and row.place == "away"]
        now = f"{table}{progress}"
        if now == shown:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), shown
        return self._served(language), table, progress, gr.update(choices=away), now

    def fetch(self, name: str | None, request: gr.Request) -> str:
        """Begin to fetch a model; returns how far it is."""
        language = language_for(request)
        if not name:
            raise gr.Error(say("console.model.choose", language), print_exception=False)
        with report_errors(language):
            self._fetch.start(name)
        return self._progress(language)

    def _served(self, language: str) -> str:
        settings = self._settings
        name = escaped(settings.model)
        return say("console.model.served", language, model=name, quantization=settings.quantization)

    def _progress(self, language: str) -> str:
        """Return how far the fetch is; "" if there was none."""
        found = self._fetch.progress()
        if found is None:
            return ""
        if found.error is not None:
            reason = escaped(translated(found.error, language))
            return say("console.model.failed", language, model=found.name, reason=reason)
        key = "fetching" if found.running else "fetched"
        return say(f"console.model.{key}", language, model=found.name, share=f"{found.share:.0%}")


def build_model_tab(settings: Settings, blocks: gr.Blocks) -> None:
    """Build the tab, refreshed on a timer."""
    page, shown = ModelPage(settings), gr.State("")
    served = gr.Markdown()
    gr.Markdown(text("console.model.switch"))
    fitting = text("console.model.fitting"), FITTING_MODELS
    chosen = gr.Radio(
        [fitting, (text("console.model.every"), EVERY_MODEL)],
        value=FITTING_MODELS,
        label=text("console.settings.filter"),
        elem_id="which-models",
    )
    table = gr.HTML()
    with gr.Row(elem_id="fetch"):
        name = gr.Dropdown([], label=text("console.model.name"), elem_id="fetch-name")
        fetch = gr.Button(
            text("console.model.fetch"), elem_id="fetch-model", scale=0, min_width=160
        )
    progress = gr.Markdown(elem_id="fetch-progress")
    hidden: Any = {"api_visibility": "private", "show_progress": "hidden"}
    inputs: Any = [chosen, shown]
    outputs: Any = [served, table, progress, name, shown]
    blocks.load(page.refresh, inputs, outputs, **hidden)
    chosen.change(page.refresh, inputs, outputs, **hidden)
    gr.Timer(MODEL_REFRESH_SECONDS).tick(page.refresh, inputs, outputs, **hidden)
    fetch.click(page.fetch, [name], [progress], **hidden)


def _facts(rows: list[ModelRow], language: str) -> Iterator[Fact]:
    for row in rows:
        sizes = {kind: gib(size) for kind, size in row.weight_bytes.items()}
        note = say("console.model.about", language, hub=row.hub_id, licence=row.licence)
        if not row.fits:
            note = f"{say('console.model.too_large', language)} {note}"
        yield Fact(
            row.name,
            say("console.model.size", language, int4=sizes["int4"], dense=sizes["none"]),
            note,
            say(f"console.model.places.{row.place}", language),
            marked=row.place == "served",
        )
