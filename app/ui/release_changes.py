"""The console's acts that change everybody's model or take long: each asks first, and for a reason.

A click alone does nothing but ask, and says what the act will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import gradio as gr

from app.html.release_names import release_name
from app.learning.training_plan import plan_training
from app.loop_settings import better_release
from app.service import Service
from app.texts import language_for, say
from app.ui.errors import report_errors
from app.ui.labels import text
from app.ui.plan_view import plan_html
from app.web.auth.identity import actor_id
from deploy.canary.canaries import OTHER_CANARY
from deploy.canary.plan import Canary
from deploy.rounds.trigger import FEW_PAIRS
from engine.errors import Conflict
from engine.storage import find_digest, short_id

Act = Literal["promote", "rollback", "tune", "round", "promote_candidate", "take_back"]
# The button may stand a screen away from the question, which is drawn some frames later
SHOW_QUESTION = """() => {
  const show = (frames) => {
    const yes = document.querySelector("#confirm");
    if (yes?.offsetParent) {
      document.querySelector("#question").scrollIntoView({block: "center"});
      yes.focus({preventScroll: true});
    } else if (frames) requestAnimationFrame(() => show(frames - 1));
  };
  show(120);
}"""
WITHOUT_REASON: tuple[Act, ...] = ("tune", "round")


class Asked(NamedTuple):
    """The question that is open, as the server asked it: the confirmed act is this one.

    `release` is the id, or its beginning, of the release that it is about.
    """

    act: Act
    release: str = ""
    force: bool = False


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
        words = say(f"console.confirm.{key}", language, release=release)
        return _question(Asked("promote", release, force), words)

    def ask_rollback(self, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether everybody is to have the release before again."""
        language = language_for(request)
        with report_errors(language):
            registry = self._workspace.registry
            target = registry.rollback_target(registry.live())
        name = release_name(target, language)
        words = say("console.confirm.ask_rollback", language, release=name)
        return _question(Asked("rollback"), words)

    def ask_tune(self, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether to train, and say on how much; few examples are warned of."""
        language = language_for(request)
        pairs = self._workspace.training_set.refresh().count("pairs")
        key = "ask_tune_few" if pairs < FEW_PAIRS else "ask_tune"
        words = say(f"console.confirm.{key}", language, pairs=pairs, wanted=FEW_PAIRS)
        return _question(Asked("tune"), words)

    def ask_round(self, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether to run a whole round of the loop, with its plan and what comes of it."""
        language, workspace = language_for(request), self._workspace
        with report_errors(language):
            plan = plan_training(workspace, workspace.loop_recipe()[0])
        after = say(f"console.canary.after_{better_release(workspace.settings)}", language)
        words = say("console.confirm.ask_round", language, after=after)
        return _question(Asked("round"), words, plan_html(plan, language, may_go_live=True))

    def ask_promote_candidate(self, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether the release on trial is to be everybody's model now."""
        return self._ask_about_candidate("promote_candidate", request)

    def ask_take_back(self, request: gr.Request) -> tuple[Any, ...]:
        """Ask whether nobody is to get the release on trial any more."""
        return self._ask_about_candidate("take_back", request)

    def _ask_about_candidate(self, act: Act, request: gr.Request) -> tuple[Any, ...]:
        language = language_for(request)
        with report_errors(language):
            candidate = self._running_canary().plan.candidate
        words = say(f"console.confirm.ask_{act}", language, release=short_id(candidate))
        return _question(Asked(act, candidate), words)

    def confirm(self, asked: Asked, reason: str, request: gr.Request) -> tuple[Any, ...]:
        """Do what was asked about; returns the question's end."""
        language = language_for(request)
        with report_errors(language):
            done = self._do(asked, reason, actor_of(request))
        self._changed()
        gr.Info(say(f"console.overview.{done}", language), duration=3)
        return no_question()

    def _do(self, asked: Asked, reason: str, actor: str) -> str:
        """Carry out an act; returns the key of what to say of it."""
        workspace = self._workspace
        if asked.act == "tune":
            self._service.rounds.tune(actor)
            return "tuning_started"
        if asked.act == "round":
            self._service.rounds.start_round(actor)
            return "round_started"
        if asked.act == "rollback":
            live = workspace.releases.rollback(reason=reason, actor=actor)
            workspace.accounts.audit.record(actor, "roll back", live.bundle or "base")
            workspace.releases.wait_until_served(live)
            return "rolled_back"
        if asked.act == "take_back":
            workspace.canaries.take_back(actor, asked.release, reason)
            workspace.accounts.audit.record(actor, "canary roll back", asked.release)
            return "taken_back"
        bundle = find_digest(workspace.home.bundles, asked.release)
        if asked.act == "promote_candidate":
            self._require_on_trial(bundle)
        force = asked.force or asked.act == "promote_candidate"
        live = workspace.releases.promote(bundle, force=force, reason=reason, actor=actor)
        workspace.accounts.audit.record(actor, "promote", bundle)
        workspace.releases.wait_until_served(live)
        return "promoted"

    def _require_on_trial(self, bundle: str) -> None:
        if self._running_canary().plan.candidate != bundle:
            raise Conflict(OTHER_CANARY)

    def _running_canary(self) -> Canary:
        running = self._workspace.canaries.running()
        if running is None:
            raise Conflict("no canary runs")
        return running


class Question(NamedTuple):
    """The widgets of the question, hidden until a button is pressed."""

    group: gr.Group
    words: gr.Textbox
    plan: gr.HTML
    reason: gr.Textbox
    yes: gr.Button
    no: gr.Button


def build_question() -> Question:
    """Build the question where it will stand."""
    with gr.Group(visible=False, elem_id="question") as group:
        words = gr.Textbox(
            interactive=False, show_label=False, container=False, lines=2, elem_id="asked"
        )
        plan = gr.HTML(visible=False, padding=True)
        reason = gr.Textbox(label=text("console.confirm.reason"), elem_id="why", max_length=1000)
        with gr.Row():
            yes = gr.Button(text("console.confirm.yes"), variant="primary", elem_id="confirm")
            no = gr.Button(text("console.confirm.no"), elem_id="do-not")
    return Question(group, words, plan, reason, yes, no)


def connect_acts(
    page: ReleaseChanges,
    question: Question,
    *,
    chosen: gr.Dropdown,
    force: gr.Checkbox,
    buttons: Mapping[str, gr.Button],
) -> None:
    """Let the button of each act ask, and the question's buttons do it or not."""
    asked = gr.State(None)
    hidden: Any = {"api_visibility": "private"}
    shown: Any = [asked, question.group, question.words, question.reason, question.plan]
    asking: dict[Act, tuple[Callable[..., Any], list[Any]]] = {
        "promote": (page.ask_promote, [chosen, force]),
        "rollback": (page.ask_rollback, []),
        "tune": (page.ask_tune, []),
        "round": (page.ask_round, []),
        "promote_candidate": (page.ask_promote_candidate, []),
        "take_back": (page.ask_take_back, []),
    }
    for act, (ask, given) in asking.items():
        press = buttons[act].click(ask, given, shown, **hidden)
        press.success(None, None, None, js=SHOW_QUESTION, **hidden)
    question.yes.click(page.confirm, [asked, question.reason], shown, **hidden)
    question.no.click(no_question, None, shown, **hidden)


def no_question() -> tuple[Any, ...]:
    """Return the updates that take the question away."""
    return gr.skip(), gr.update(visible=False), "", "", gr.update(value="", visible=False)


def _question(asked: Asked, words: str, plan: str = "") -> tuple[Any, ...]:
    """Return the updates that ask, with the reason where one is kept and the plan where one is."""
    reason = gr.update(value="", visible=asked.act not in WITHOUT_REASON)
    plan_update = gr.update(value=plan, visible=bool(plan))
    return asked, gr.update(visible=True), words, reason, plan_update


def actor_of(request: gr.Request) -> str:
    """Return who is at the console, for the record; nobody in particular without accounts."""
    assert request.request is not None  # gradio has none where a handler is called as a function
    return actor_id(request.request)
