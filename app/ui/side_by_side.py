"""The console's comparison of two releases on the operator's own question. Nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from typing import Any

import gradio as gr

from app.answering.answering import BASE, LIVE, AnswerUpdate, RunningAnswer
from app.service import Service
from app.texts import language_for, say
from app.ui.errors import report_errors
from app.ui.labels import text
from app.web.auth.identity import user_of
from engine.errors import BurnishError
from engine.messages import require_text
from engine.prompts.modes import make_template
from engine.storage import short_id


class SideBySide:
    """The event handlers, on one running service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def choices(self, offered: list[str], request: gr.Request) -> tuple[Any, ...]:
        """Return updates of both lists of releases; `offered` are those that they have."""
        language = language_for(request)
        registry = self._service.workspace.registry
        tainted = registry.tainted()
        known = [short_id(r.bundle) for r in registry.list() if r.bundle not in tainted]
        if known == offered:
            return gr.skip(), gr.skip(), known
        named = [(say(f"console.sides.{name}", language), name) for name in (LIVE, BASE)]
        choices = [*named, *((name, name) for name in known)]
        return gr.update(choices=choices), gr.update(choices=choices), known

    def ask(
        self, first: str, second: str, question: str, request: gr.Request
    ) -> Iterator[tuple[str, str]]:
        """Yield both answers as they grow.

        Greedy, so that what differs is the release's and not chance's.
        """
        assert request.request is not None  # gradio has none for a call as a function
        user = user_of(request.request.session)
        answers: list[RunningAnswer] = []
        with report_errors(language_for(request)):
            try:
                for release in (first, second):
                    answers.append(self._begin(user, release, question))
            except BurnishError:
                _give_up(answers)
                raise
            shown = ["", ""]
            try:
                for updates in zip_longest(*answers):
                    shown = [_shown(u, s) for u, s in zip(updates, shown, strict=True)]
                    yield shown[0], shown[1]
            finally:  # also where the page has gone
                _give_up(answers)

    def _begin(self, user: str, release: str, question: str) -> RunningAnswer:
        """Queue one answer; raises the errors of `Completions.complete` and `adapter_named`."""
        service = self._service
        template = make_template("plain", (), service.workspace.settings.system_prompt)
        (answer,) = service.completions.complete(
            user,
            template.build([], require_text(question)),
            [service.chat.sampling(temperature=0.0)],
            adapter=service.adapter_named(release),
            is_stored=False,
        )
        return answer


def build_side_by_side(service: Service, blocks: gr.Blocks) -> None:
    """Build the two lists, the question and the two answers."""
    page = SideBySide(service)
    gr.Markdown(text("console.sides.title"))
    with gr.Row():
        first, second = (
            gr.Dropdown(
                [(text(f"console.sides.{LIVE}"), LIVE), (text(f"console.sides.{BASE}"), BASE)],
                value=value,
                label=text(f"console.sides.{place}"),
                elem_id=f"side-release-{place}",
                min_width=160,
            )
            for place, value in (("first", LIVE), ("second", BASE))
        )
    question = gr.Textbox(label=text("console.sides.question"), elem_id="side-question")
    ask = gr.Button(text("console.sides.ask"), elem_id="side-ask", scale=0, min_width=160)
    with gr.Row():
        answers = [
            gr.Textbox(
                label=text(f"console.sides.answer_{place}"),
                lines=6,
                interactive=False,
                elem_id=f"side-answer-{place}",
                min_width=280,
            )
            for place in ("first", "second")
        ]
    offered = gr.State([])
    hidden: Any = {"api_visibility": "private"}
    lists: Any = [first, second, offered]
    blocks.load(page.choices, [offered], lists, **hidden)
    first.focus(page.choices, [offered], lists, show_progress="hidden", **hidden)
    asked: Any = [first, second, question]
    gr.on([ask.click, question.submit], page.ask, asked, answers, **hidden)


def _shown(update: AnswerUpdate | None, so_far: str) -> str:
    """The answer after an update: its text, and the note of one that failed."""
    if update is None:  # it has ended before the other
        return so_far
    return "\n\n".join(filter(None, (update.text, update.note)))


def _give_up(answers: list[RunningAnswer]) -> None:
    """End answers that nobody waits for; one that has ended stays as it is."""
    for answer in answers:
        answer.cancel()
        with suppress(BurnishError):
            for _ in answer:
                pass
