"""The console's promotion, rollback and start of a training: each asks first, and for a reason.

They change everybody's model, so a click alone does nothing but ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import gradio as gr

from app.html.release_names import release_name
from app.service import Service
from app.texts import language_for, say
from app.ui.errors import report_errors
from app.ui.labels import text
from app.web.auth.identity import person_of
from deploy.rounds.trigger import FEW_PAIRS
from engine.storage import find_digest

Act = Literal["promote", "rollback", "tune"]


class ReleaseChanges:
    """The event handlers, on one running service."""

    def __init__(self, service: Service, changed: Callable[[], object] = lambda: None) -> None:
        """`changed` is called when something was done, so that the page can read it at once."""
        self._service = service
        self._changed = changed
        self._workspace = service.workspace

    def ask_promote(self, release: str | None, force: bool, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether a release is to be everybody's model."""
        language = language_for(request)
        if not release:
            message = say("console.overview.choose_release", language)
            raise gr.Error(message, print_exception=False)
        key = "ask_override" if force else "ask_promote"
        return _question("promote", say(f"console.confirm.{key}", language, release=release))

    def ask_rollback(self, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether everybody is to have the release before again."""
        language = language_for(request)
        with report_errors(language):
            registry = self._workspace.registry
            target = registry.rollback_target(registry.live())
        name = release_name(target, language)
        return _question("rollback", say("console.confirm.ask_rollback", language, release=name))

    def ask_tune(self, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether to train, and say on how much; few examples are warned of."""
        language = language_for(request)
        pairs = self._workspace.training_set.refresh().count("pairs")
        key = "ask_tune_few" if pairs < FEW_PAIRS else "ask_tune"
        words = say(f"console.confirm.{key}", language, pairs=pairs, wanted=FEW_PAIRS)
        return _question("tune", words)

    def confirm(
        self, act: Act, release: str | None, force: bool, reason: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """Do what was asked about; returns the question's end."""
        language = language_for(request)
        with report_errors(language):
            done = self._do(act, release, force, reason, actor_of(request))
        self._changed()
        gr.Info(say(f"console.overview.{done}", language), duration=3)
        return no_question()

    def _do(self, act: Act, release: str | None, force: bool, reason: str, actor: str) -> str:
        """Carry out an act; returns the key of what to say of it."""
        workspace = self._workspace
        if act == "tune":
            self._service.rounds.tune(actor)
            return "tuning_started"
        if act == "rollback":
            live = workspace.releases.rollback(reason=reason, actor=actor)
            workspace.accounts.audit.record(actor, "roll back", live.bundle or "base")
            workspace.releases.wait_until_served(live)
            return "rolled_back"
        bundle = find_digest(workspace.home.bundles, release or "")
        live = workspace.releases.promote(bundle, force=force, reason=reason, actor=actor)
        workspace.accounts.audit.record(actor, "promote", bundle)
        workspace.releases.wait_until_served(live)
        return "promoted"


def build_release_changes(
    page: ReleaseChanges, *, chosen: gr.Dropdown, force: gr.Checkbox, buttons: dict[Act, gr.Button]
) -> None:
    """Build the question, hidden until a button is pressed."""
    act = gr.State("promote")
    with gr.Group(visible=False, elem_id="question") as group:
        question = gr.Textbox(
            interactive=False, show_label=False, container=False, lines=2, elem_id="asked"
        )
        reason = gr.Textbox(label=text("console.confirm.reason"), elem_id="why", max_length=1000)
        with gr.Row():
            yes = gr.Button(text("console.confirm.yes"), variant="primary", elem_id="confirm")
            no = gr.Button(text("console.confirm.no"), elem_id="do-not")
    hidden: Any = {"api_visibility": "private"}
    shown: Any = [act, group, question, reason]
    buttons["promote"].click(page.ask_promote, [chosen, force], shown, **hidden)
    buttons["rollback"].click(page.ask_rollback, None, shown, **hidden)
    buttons["tune"].click(page.ask_tune, None, shown, **hidden)
    yes.click(page.confirm, [act, chosen, force, reason], shown, **hidden)
    no.click(no_question, None, shown, **hidden)


def no_question() -> tuple[Any, ...]:
    """Return the updates that take the question away."""
    return gr.skip(), gr.update(visible=False), "", ""


def _question(act: Act, words: str) -> tuple[Any, ...]:
    """Return the updates that ask; a training needs no reason."""
    return act, gr.update(visible=True), words, gr.update(value="", visible=act != "tune")


def actor_of(request: gr.Request) -> str:
    """Return who is at the console, for the record; nobody in particular without accounts."""
    assert request.request is not None  # gradio has none where a handler is called as a function
    person = person_of(request.request)
    return person.id if person.name else "console"
