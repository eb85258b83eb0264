"""The row "Why?" that a thumb opens on the chat page. A thumb counts without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.ui.errors import shown_errors
from app.ui.exchange import Exchange, Page
from app.ui.session import user
from app.ui.texts import text, toast
from feedback_store.store import MAX_COMMENT_CHARS, REASONS_OF, FeedbackStore


class Reasons:
    """The row's handlers."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store

    def explain(
        self, reasons: list[str], comment: str | None, page: Page, request: gr.Request
    ) -> tuple[Page, Any]:
        """Store the thumb once more, with what is said of it."""
        comment = comment or ""
        judged = page.judged
        if judged is not None and (reasons or comment.strip()):
            assert judged.answer_id is not None
            with shown_errors():
                self._store.vote(
                    judged.answer_id, user(request), judged.vote, reasons=reasons, comment=comment
                )
            gr.Info(toast("thanks", request), duration=2)
        page.judged = None
        return page, gr.update(visible=False)


@dataclass(frozen=True)
class ReasonRow:
    """The row's widgets."""

    row: gr.Row
    reasons: gr.CheckboxGroup
    comment: gr.Textbox
    send: gr.Button

    @property
    def widgets(self) -> list[Any]:
        """What `opened` is about."""
        return [self.row, self.reasons, self.comment]

    def wire(self, reasons: Reasons, state: Any) -> None:
        """Connect the row to its handler."""
        said: Any = [self.reasons, self.comment, state]
        gr.on(
            [self.send.click, self.comment.submit], reasons.explain, said, [state, self.row],
            api_visibility="private",
        )  # fmt: skip


def build_row() -> ReasonRow:
    """The row, hidden until somebody votes."""
    with gr.Row(visible=False, elem_id="why") as row:
        reasons = gr.CheckboxGroup([], label=text("why"), elem_id="reasons", scale=2)
        with gr.Column(scale=1, min_width=240):
            comment = gr.Textbox(
                "", label=text("comment"), elem_id="comment", lines=1, max_length=MAX_COMMENT_CHARS
            )
            send = gr.Button(text("send_reasons"), elem_id="send-reasons", size="sm")
    return ReasonRow(row, reasons, comment, send)


def opened(judged: Exchange | None) -> tuple[Any, Any, Any]:
    """Updates of the row's widgets: the reasons that fit the thumb; hidden where there is none."""
    if judged is None or judged.vote == 0:
        return gr.update(visible=False), gr.update(value=[]), ""
    choices = [(text(f"reason_{word}"), word) for word in REASONS_OF[judged.vote]]
    return gr.update(visible=True), gr.update(choices=choices, value=[]), ""
