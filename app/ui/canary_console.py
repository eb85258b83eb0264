"""The console's card of the canary: its arms, how near a decision is, and its buttons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from app.html.release_names import release_name
from app.learning.shared_reading import SharedReading
from app.service import Service
from app.texts import language_for, say, translated
from app.ui.errors import report_errors
from app.ui.labels import text
from deploy.canary.canaries import CanaryStatus
from engine.storage import find_digest, short_id

CARD_SECONDS = 5.0


class CanaryCard:
    """The event handlers of the card; `actor_of` names who is at the console."""

    def __init__(self, service: Service, actor_of: Callable[[gr.Request], str]) -> None:
        self._workspace = service.workspace
        self._actor_of = actor_of
        self._newest = SharedReading(self._read, CARD_SECONDS)

    def _read(self) -> CanaryStatus | None:
        """The newest canary with its figures, for which all that was said since is read."""
        newest = self._workspace.canaries.newest()
        return None if newest is None else self._workspace.canaries.status(newest)

    def refresh(self, request: gr.Request) -> tuple[Any, Any]:
        """Return the card's text, and whether there is something to stop."""
        language = language_for(request)
        status = self._newest.get()
        if status is None:
            return say("console.canary.none", language), gr.update(interactive=False)
        return described(status, language), gr.update(interactive=status.canary.runs)

    def start(self, release: str | None, share: float, request: gr.Request) -> tuple[Any, Any]:
        """Start a canary of the chosen release."""
        language = language_for(request)
        if not release:
            message = say("console.overview.choose_release", language)
            raise gr.Error(message, print_exception=False)
        actor = self._actor_of(request)
        with report_errors(language):
            digest = find_digest(self._workspace.home.bundles, release)
            self._workspace.canaries.start_by(actor, digest, share=share / 100)
            self._workspace.accounts.audit.record(actor, "canary start", digest)
        self._newest.forget()
        return self.refresh(request)

    def stop(self, request: gr.Request) -> tuple[Any, Any]:
        """End the canary undecided."""
        language, actor = language_for(request), self._actor_of(request)
        with report_errors(language):
            status = self._workspace.canaries.stop(actor)
            self._workspace.accounts.audit.record(
                actor, "canary stop", status.canary.plan.candidate
            )
        self._newest.forget()
        return self.refresh(request)


def described(status: CanaryStatus, language: str) -> str:
    """Return a canary in sentences, as Markdown; a reason may quote an adapter's file, so that it
    stands in the record and not here."""
    canary, standing = status.canary, status.standing
    plan = canary.plan
    state = "running" if canary.runs else str(canary.outcome)
    lines = [
        say(
            "console.canary.state",
            language,
            candidate=short_id(plan.candidate),
            live=release_name(plan.incumbent, language),
            share=f"{plan.share:.0%}",
            state=translated(state, language),
        )
    ]
    for arm in ("candidate", "live"):
        counts = standing.arms[arm]
        judged = counts.good + counts.bad
        rate = f"{counts.good / judged:.0%}" if judged else "–"
        lines.append(
            say(
                f"console.canary.{arm}",
                language,
                rate=rate,
                good=counts.good,
                judged=judged,
                ties=counts.ties,
            )
        )
    for name, value, needed in (
        ("better", standing.better, standing.better_needed),
        ("worse", standing.worse, standing.worse_needed),
    ):
        figures = {"value": f"{value:.2f}", "needed": f"{needed:.0f}"}
        lines.append(say(f"console.canary.{name}", language, **figures))
    lines.append(say("console.canary.budget", language, votes=standing.votes, budget=plan.votes))
    if status.reason:
        lines.append(translated(status.reason, language))
    return "\n\n".join(lines)


def build_canary_card(
    service: Service, blocks: gr.Blocks, chosen: gr.Dropdown, actor_of: Callable[[gr.Request], str]
) -> None:
    """Build the card under the list of releases; `chosen` is the release it would start with."""
    card = CanaryCard(service, actor_of)
    with gr.Accordion(text("console.canary.title"), open=True, elem_id="canary"):
        shown = gr.Markdown(elem_id="canary-status")
        with gr.Row(equal_height=True):
            share = gr.Slider(
                5, 50, 20, step=5, label=text("console.canary.share"), elem_id="canary-share"
            )
            start = gr.Button(text("console.canary.start"), elem_id="canary-start")
            stop = gr.Button(text("console.canary.stop"), variant="stop", elem_id="canary-stop")
    outputs: Any = [shown, stop]
    hidden: Any = {"api_visibility": "private"}
    quiet: Any = {"show_progress": "hidden", **hidden}
    blocks.load(card.refresh, None, outputs, **hidden)
    gr.Timer(CARD_SECONDS).tick(card.refresh, None, outputs, **quiet)
    start.click(card.start, [chosen, share], outputs, **hidden)
    stop.click(card.stop, None, outputs, **hidden)
