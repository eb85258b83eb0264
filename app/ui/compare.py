"""Two answers side by side on the chat page. Stores what the person says of them and nothing
before that: who leaves without choosing leaves an answer behind, and no comparison."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.conversation import Chat
from app.running_answers import StopButton
from app.ui.errors import escaped, shown_errors
from app.ui.exchange import WINDOW, Comparing, Exchange, Page
from app.ui.session import Stops, last_answer, latest_updates, nothing, user
from app.ui.texts import text, toast
from engine.errors import BurnishError
from feedback_store.records import CHOICES, Choice
from feedback_store.store import FeedbackStore

Shown = tuple[Any, ...]  # page, chat window, panel, left, right, one for each choice


class Comparisons:
    """The panel's handlers."""

    def __init__(self, chat: Chat, store: FeedbackStore, stops: Stops) -> None:
        self._chat = chat
        self._store = store
        self._stops = stops

    async def begin(self, page: Page, request: gr.Request) -> AsyncIterator[Shown]:
        """Stream a second answer to the last question beside the first."""
        answer_id, first = last_answer(page, request), page.exchanges[-1]
        comparing = Comparing(first, Exchange(first.question), secrets.choice((True, False)))
        stop = StopButton()
        page.comparing = comparing
        try:
            self._stops.begin(stop, request)
            yield _shown(page)
            updates = self._chat.regenerate(user(request), answer_id, to_compare=True, stop=stop)
            async for update in latest_updates(updates):
                comparing.second.show(update)
                if page.comparing is not comparing:  # the person went on without it
                    yield nothing(5 + len(CHOICES))
                    return
                yield _shown(page)
            self._end(page, comparing, request)
            yield _shown(page)
        except BurnishError as error:
            page.comparing = None
            gr.Warning(escaped(error))
            yield _shown(page)
        finally:  # last: who leaves waits for this, so that nothing is drawn over the next page
            self._stops.end(stop)

    def choose(self, choice: Choice, page: Page, request: gr.Request) -> Shown:
        """Store which side is better; it is what the conversation goes on from, or the first one
        where neither is better."""
        comparing = page.comparing
        if comparing is None or not comparing.done or page.exchanges[-1] is not comparing.first:
            raise gr.Error(toast("no_comparison", request))
        left, right = comparing.sides
        with shown_errors():
            assert left.answer_id is not None and right.answer_id is not None
            comparison = self._store.compare(left.answer_id, right.answer_id, user(request))
            self._store.choose(comparison.id, user(request), choice)
        better = {"left": left, "right": right}.get(choice, comparing.first)
        page.exchanges[-1], page.comparing = better, None
        gr.Info(toast("thanks", request), duration=2)
        return _shown(page)

    def _end(self, page: Page, comparing: Comparing, request: gr.Request) -> None:
        """Let both be judged, unless the second is lost or empty."""
        second = comparing.second
        comparing.done = second.answer_id is not None and bool(second.thought or second.answer)
        if not comparing.done:
            page.comparing = None
            gr.Warning(escaped(second.note or toast("no_comparison", request)))


@dataclass(frozen=True)
class ComparePanel:
    """The panel's widgets: two windows and a button for each choice."""

    panel: gr.Column
    left: gr.Chatbot
    right: gr.Chatbot
    choices: dict[Choice, gr.Button]

    def wire(self, comparisons: Comparisons, begun: Any, state: Any, window: Any) -> None:
        """Connect the panel to its handlers; it opens after the event `begun`."""
        hidden: Any = {"api_visibility": "private"}
        shown: Any = [state, window, self.panel, self.left, self.right, *self.choices.values()]
        begun.then(comparisons.begin, [state], shown, concurrency_limit=None, **hidden)
        for choice, button in self.choices.items():
            button.click(comparisons.choose, [gr.State(choice), state], shown, **hidden)


def build_panel() -> ComparePanel:
    """The panel, which is shown in place of the chat window."""
    with gr.Column(visible=False, elem_id="compare-panel") as panel:
        with gr.Row():
            left, right = (_side(f"compare-{side}") for side in ("left", "right"))
        with gr.Row():
            choices = {
                choice: gr.Button(text(f"compare_{choice}"), elem_id=f"choose-{choice}", size="md")
                for choice in CHOICES
            }
    return ComparePanel(panel, left, right, choices)  # type: ignore[arg-type]  # CHOICES are Choice


def _side(elem_id: str) -> gr.Chatbot:
    return gr.Chatbot(show_label=False, elem_id=elem_id, buttons=[], **WINDOW)


def _shown(page: Page) -> Shown:
    comparing = page.comparing
    if comparing is None:
        buttons = [gr.update(interactive=False)] * len(CHOICES)
        window = gr.update(visible=True, **page.window())
        return page, window, gr.update(visible=False), [], [], *buttons
    buttons = [gr.update(interactive=comparing.done)] * len(CHOICES)
    return page, gr.update(visible=False), gr.update(visible=True), *comparing.bubbles(), *buttons
