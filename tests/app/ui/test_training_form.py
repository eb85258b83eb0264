"""The console's form of a training: filled from a recipe, planned, and started as planned."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from app.settings import Settings
from app.ui.training_form import LEFT_TO_FILES, TrainingForm, form_fields, form_sections
from app.workspace import Workspace
from engine.prompts.modes import PromptTemplate
from tests.app.learning.test_resumed_jobs import pairs
from tuning.recipe import Recipe, read_recipe

pytestmark = pytest.mark.integration
NAMES = [field.name for field in form_fields()]


def request_in(language: str) -> gr.Request:
    client = SimpleNamespace(scope={}, session={}, headers={})
    headers = {"accept-language": language}
    return cast(gr.Request, SimpleNamespace(headers=headers, request=client))


ENGLISH = request_in("en")


class Form:
    """The form as an operator sees it: values by name, and what was started."""

    def __init__(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[tuple[Recipe, dict[str, str]]] = []
        rounds = SimpleNamespace(tune=lambda _actor, asked: self.started.append(asked))
        service = SimpleNamespace(workspace=workspace, rounds=rounds)
        monkeypatch.setattr("app.ui.training_form.actor_of", lambda _request: "console")
        monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
        self.page = TrainingForm(cast(Any, service))
        self.workspace = workspace

    def choose(
        self, source: str, request: gr.Request = ENGLISH, *, everything: bool = False
    ) -> tuple[str, set[str], dict[str, Any], dict[str, str]]:
        """The sentence about a recipe, the sections shown, the values and the helps."""
        said, _, _, *updates = self.page.fill(source, everything, request)
        sections, fields = updates[: -len(NAMES)], updates[-len(NAMES) :]
        shown = zip(form_sections(), sections, strict=True)
        names = {name for name, each in shown if each["visible"]}
        values = {name: each["value"] for name, each in zip(NAMES, fields, strict=True)}
        helps = {name: each["info"] for name, each in zip(NAMES, fields, strict=True)}
        return said, names, values, helps

    def plan(self, source: str, values: dict[str, Any]) -> tuple[str, Any]:
        """The plan as HTML, and what the page remembers of it."""
        entered = [values[name] for name in NAMES]
        html, start, planned, _ = self.page.plan(ENGLISH, source, *entered)
        assert start["visible"]
        return html, planned

    def start(self, source: str, planned: Any, values: dict[str, Any]) -> None:
        self.page.start(ENGLISH, source, planned, *[values[name] for name in NAMES])


@pytest.fixture
def form(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Form]:
    workspace = Workspace(settings)
    workspace.store.add_imported(pairs(40), PromptTemplate("plain", "", "", ()), "ann")
    yield Form(workspace, monkeypatch)
    workspace.close()


def test_a_recipe_shows_its_own_values_and_the_methods_that_it_uses(form: Form) -> None:
    said, sections, values, helps = form.choose("sft-dpo")
    assert "imitate good answers (SFT)" in said
    assert {"sft", "dpo", "adapter"} <= sections
    assert not {"joint", "kto"} & sections
    assert (values["dpo.learning_rate"], values["dpo.flip_rate"]) == ("2e-05", "")
    assert helps["adapter.rank"].startswith("size of the adapter")
    _, everything, _, chinese = form.choose("sft-dpo", request_in("zh"), everything=True)
    assert {"joint", "kto"} <= everything
    assert all(helps[name] != chinese[name] for name in NAMES)


def test_no_field_names_a_file_of_the_server() -> None:
    assert not set(LEFT_TO_FILES) & set(NAMES)


def test_what_was_planned_is_what_is_started(form: Form) -> None:
    _, _, values, _ = form.choose("auto")
    values["joint.epochs"] = "2"
    html, planned = form.plan("auto", values)
    assert "Would train on" in html
    assert planned.joint.epochs == 2.0
    form.start("auto", planned, values)
    ((recipe, origins),) = form.started
    assert recipe == planned
    assert origins["joint.epochs"] == "asked"
    assert recipe.search == read_recipe("auto").search


def test_a_form_that_changed_after_its_plan_starts_nothing(form: Form) -> None:
    _, _, values, _ = form.choose("auto")
    _, planned = form.plan("auto", values)
    with pytest.raises(gr.Error, match="plan it again"):
        form.start("auto", planned, {**values, "seed": "3"})
    assert form.started == []


def test_the_recipe_s_own_words_refuse_what_does_not_fit(form: Form) -> None:
    _, _, values, _ = form.choose("auto")
    with pytest.raises(gr.Error, match=r"joint\.label_smoothing must lie in \[0, 0\.5\)"):
        form.plan("auto", {**values, "joint.label_smoothing": "0.7"})
    with pytest.raises(gr.Error, match=r"adapter\.rank: 'big' is not a whole number"):
        form.plan("auto", {**values, "adapter.rank": "big"})
