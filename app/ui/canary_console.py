"""The console's card of the canary: its arms, how near a decision is, and its buttons."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.html.canary_card import canary_html, no_canary_html
from app.html.desk_words import DeskWords
from app.learning.desk import DeskReader
from app.learning.shared_reading import SharedReading
from app.service import Service
from app.texts import language_for, say
from app.ui.errors import report_errors
from app.ui.labels import text
from deploy.canary.canaries import CanaryStatus
from engine.storage import find_digest

CARD_SECONDS = 5.0
PERCENT = 100


class CanaryCard:
    """The event handlers of the card; `actor_of` names who is at the console."""

    def __init__(
        self, service: Service, desk: DeskReader, actor_of: Callable[[gr.Request], str]
    ) -> None:
        self._workspace = service.workspace
        self._desk = desk
        self._actor_of = actor_of
        self._newest = SharedReading(self._read, CARD_SECONDS)

    def _read(self) -> CanaryStatus | None:
        """The newest canary with its figures, for which all that was said since is read."""
        newest = self._workspace.canaries.newest()
        return None if newest is None else self._workspace.canaries.status(newest)

    def refresh(self, shown: str, request: gr.Request) -> tuple[Any, ...]:
        """Return updates of the card, of what is `shown` of it, and of its two rows of buttons."""
        drawn, runs = self._drawn(language_for(request))
        if drawn == shown:
            return (gr.skip(),) * 4
        return drawn, drawn, gr.update(visible=not runs), gr.update(visible=runs)

    def start(self, release: str | None, share: float, request: gr.Request) -> tuple[Any, ...]:
        """Start a canary of the chosen release."""
        language = language_for(request)
        if not release:
            message = say("console.overview.choose_release", language)
            raise gr.Error(message, print_exception=False)
        actor = self._actor_of(request)
        with report_errors(language):
            digest = find_digest(self._workspace.home.bundles, release)
            self._workspace.canaries.start_by(actor, digest, share=share / PERCENT)
            self._workspace.accounts.audit.record(actor, "canary start", digest)
        return self._changed(request)

    def stop(self, request: gr.Request) -> tuple[Any, ...]:
        """End the canary undecided."""
        language, actor = language_for(request), self._actor_of(request)
        with report_errors(language):
            status = self._workspace.canaries.stop(actor)
            candidate = status.canary.plan.candidate
            self._workspace.accounts.audit.record(actor, "canary stop", candidate)
        return self._changed(request)

    def forget(self) -> None:
        """Let the next look be a fresh one."""
        self._newest.forget()

    def _changed(self, request: gr.Request) -> tuple[Any, ...]:
        self._newest.forget()
        self._desk.forget()
        return self.refresh("", request)

    def _drawn(self, language: str) -> tuple[str, bool]:
        """The card, and whether a canary runs."""
        status, words = self._newest.get(), DeskWords(self._desk.read(), language, time.time())
        if status is None:
            return no_canary_html(words), False
        names = {each.id: each.name for each in self._workspace.accounts.list()}
        actor = status.canary.actor
        return canary_html(words, status, names.get(actor, actor)), status.canary.runs


def build_canary_card(
    service: Service,
    blocks: gr.Blocks,
    chosen: gr.Dropdown,
    desk: DeskReader,
    actor_of: Callable[[gr.Request], str],
) -> tuple[CanaryCard, dict[str, gr.Button]]:
    """Build the card under the list of releases; `chosen` is the release it would start with.

    Returns the card and the buttons by which a running canary is decided at once, whose acts ask
    first (`release_changes`).
    """
    card, shown = CanaryCard(service, desk, actor_of), gr.State("")
    with gr.Accordion(text("console.canary.title"), open=True, elem_id="canary"):
        drawn = gr.HTML(elem_id="canary-status", apply_default_css=False)
        with gr.Row() as beginning:
            share = gr.Slider(
                5,
                50,
                PERCENT * service.workspace.settings.canary_share,
                step=5,
                label=text("console.canary.share"),
                elem_id="canary-share",
            )
            start = gr.Button(text("console.canary.start"), elem_id="canary-start")
        with gr.Row(visible=False) as deciding:
            decide = {
                "promote_candidate": gr.Button(
                    text("console.canary.promote"), elem_id="canary-promote", min_width=180
                ),
                "take_back": gr.Button(
                    text("console.canary.take_back"), elem_id="canary-take-back", min_width=180
                ),
            }
            stop = gr.Button(text("console.canary.stop"), elem_id="canary-stop", min_width=180)
    outputs: Any = [drawn, shown, beginning, deciding]
    hidden: Any = {"api_visibility": "private"}
    quiet: Any = {"show_progress": "hidden", **hidden}
    blocks.load(card.refresh, [shown], outputs, **hidden)
    gr.Timer(CARD_SECONDS).tick(card.refresh, [shown], outputs, **quiet)
    start.click(card.start, [chosen, share], outputs, **hidden)
    stop.click(card.stop, None, outputs, **hidden)
    return card, decide
