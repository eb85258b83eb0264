"""The console's form of a training: its fields are the recipe's own, read off their types.

A training is planned first: memory, time, and what speaks against it; then it can be started.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.learning.training_plan import plan_training
from app.service import Service
from app.texts import language_for, say, translated
from app.ui.errors import report_errors
from app.ui.labels import text
from app.ui.plan_view import plan_html
from app.ui.release_changes import actor_of
from tuning.recipe import METHODS, change_recipe, shipped_recipes
from tuning.recipe_form import RecipeField, field_values, recipe_fields, recipe_of_form

# They name files of the server, or are filled in by themselves: a recipe's file has them
LEFT_TO_FILES = ("replay.file", "replay.digest", "pretrain.text", "pretrain.digest")
ALWAYS = ("", "adapter", "search")  # sections that every recipe uses
FIRST_RECIPE = "auto"  # the loop's
OWN_RECIPE = "own"  # the operator's, that the settings name


def form_fields() -> Sequence[RecipeField]:
    """Return the fields of the form."""
    return [each for each in recipe_fields() if each.name not in LEFT_TO_FILES]


def form_sections() -> list[str]:
    """Return the sections in the order of their importance; "" is the recipe's own values."""
    named = list(dict.fromkeys(field.section for field in form_fields()))
    methods = [name for name in named if name in METHODS]
    return ["adapter", *methods, *[n for n in named if n and n not in ("adapter", *methods)], ""]


class TrainingForm:
    """The event handlers of the form, on one running service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._workspace = service.workspace

    def recipes(self) -> list[str]:
        """Return the names that can be chosen."""
        own = [OWN_RECIPE] if self._workspace.settings.recipe else []
        return [*own, *shipped_recipes()]

    def fill(self, source: str, everything: bool, request: gr.Request) -> tuple[Any, ...]:
        """Return the recipe's description, its values, and which sections are shown."""
        language = language_for(request)
        with report_errors(language):
            recipe, _ = change_recipe(self._source(source), {})
        values = field_values(recipe)
        widgets = [
            gr.update(
                value="" if values[field.name] is None else _entered(field, values[field.name]),
                info=translated(field.help, language),
            )
            for field in form_fields()
        ]
        used = {*ALWAYS, *recipe.stages}
        sections = [gr.update(visible=everything or name in used) for name in form_sections()]
        key = source.replace("-", "_")
        described = say(f"console.recipes.{key}", language)
        return described, "", gr.update(visible=False), *sections, *widgets

    # gradio puts the request where the signature has it, which is possible before the fields alone

    def plan(self, request: gr.Request, source: str, *entered: object) -> tuple[Any, ...]:
        """Return the plan of the form's recipe, and the button that starts it."""
        language = language_for(request)
        with report_errors(language):
            recipe, _, _ = self._recipe(source, entered)
            plan = plan_training(self._workspace, recipe)
        # One button is what comes next
        quiet = gr.update(variant="secondary")
        return plan_html(plan, language), gr.update(visible=True), recipe, quiet

    def start(
        self, request: gr.Request, source: str, planned: object, *entered: object
    ) -> tuple[Any, ...]:
        """Start the training that was planned; returns the plan's end."""
        language = language_for(request)
        with report_errors(language):
            recipe, origins, _ = self._recipe(source, entered)
            if recipe != planned:
                message = say("console.form.changed", language)
                raise gr.Error(message, print_exception=False)
            self._service.rounds.tune(actor_of(request), (recipe, origins))
        gr.Info(say("console.overview.tuning_started", language), duration=3)
        return "", gr.update(visible=False), gr.update(variant="primary")

    def _recipe(self, source: str, entered: Sequence[object]) -> Any:
        names = [field.name for field in form_fields()]
        return recipe_of_form(self._source(source), dict(zip(names, entered, strict=True)))

    def _source(self, chosen: str) -> Path | str | None:
        return self._workspace.settings.recipe if chosen == OWN_RECIPE else chosen


def build_training_form(service: Service, blocks: gr.Blocks) -> None:
    """Build the form, closed until somebody wants to train."""
    page, planned = TrainingForm(service), gr.State(None)
    with gr.Accordion(text("console.form.title"), open=False, elem_id="training-form"):
        with gr.Row(equal_height=True):
            source = gr.Dropdown(
                page.recipes(),
                value=FIRST_RECIPE,
                label=text("console.form.recipe"),
                elem_id="form-recipe",
            )
            everything = gr.Checkbox(label=text("console.form.everything"), elem_id="form-all")
        described = gr.Markdown()
        sections, widgets = [], {}
        for name in form_sections():
            key = name or "common"
            label = text(f"console.sections.{key}")
            section = gr.Accordion(label, open=False, elem_id=f"section-{key}")
            with section, gr.Row():
                for field in form_fields():
                    if field.section == name:
                        widgets[field.name] = _widget(field)
            sections.append(section)
        plan_button = gr.Button(
            text("console.form.plan"), variant="primary", elem_id="plan-training"
        )
        plan = gr.HTML()
        start = gr.Button(
            text("console.form.start"), variant="primary", visible=False, elem_id="start-training"
        )
    fields = [widgets[field.name] for field in form_fields()]
    hidden: Any = {"api_visibility": "private"}
    shown: Any = [described, plan, start, *sections, *fields]
    for changed in (blocks.load, source.change, everything.change):
        changed(page.fill, [source, everything], shown, show_progress="hidden", **hidden)
    plan_button.click(page.plan, [source, *fields], [plan, start, planned, plan_button], **hidden)
    start.click(page.start, [source, planned, *fields], [plan, start, plan_button], **hidden)


def _widget(field: RecipeField) -> Any:
    """Return the input of a field; its help is set in the person's language when it is filled."""
    common: Any = {
        "label": field.name.rpartition(".")[2],
        "elem_id": f"field-{field.name.replace('.', '-')}",
        "min_width": 220,
        "info": "…",
    }
    if field.kind == "truth":
        return gr.Checkbox(**common)
    if field.kind == "choice":
        return gr.Dropdown(list(field.choices), **common)
    return gr.Textbox(max_lines=1, **common)


def _entered(field: RecipeField, value: object) -> object:
    """Return a value as its input holds it: numbers are text, so that 0.00005 stays itself."""
    return value if field.kind in ("truth", "choice") else str(value).removesuffix(".0")
