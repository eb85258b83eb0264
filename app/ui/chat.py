"""The chat page: ask, stop, regenerate, vote, correct. Knows widgets; `app.conversation` knows
what a turn is.

The page's state is the list of shown answers; each entry of the chat window belongs to a turn, and
a turn's answer is the one it shows now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.conversation import AnswerUpdate, Chat, StopButton
from app.ui.errors import shown_errors
from app.ui.texts import text
from app.web.identity import user_of
from engine.errors import BurnishError
from engine.prompts.modes import MODES
from feedback_store.records import Vote
from feedback_store.store import FeedbackStore, new_id

Bubbles = list[gr.ChatMessage]
THUMBS: dict[bool | str, Vote] = {True: 1, "Like": 1, False: -1, "Dislike": -1}


@dataclass
class Exchange:
    """One question with the answer shown for it."""

    question: str
    answer_id: str | None = None
    thought: str = ""
    answer: str = ""
    thinking: bool = False
    note: str = ""
    vote: Vote = 0
    correction: str = ""

    def show(self, update: AnswerUpdate) -> None:
        """Take over what the stream says."""
        self.answer_id, self.thought, self.answer = update.answer_id, update.thought, update.text
        self.thinking = update.status == "streaming" and not update.text
        self.note = update.note
        if update.status == "stopped":
            self.note = "Stopped."

    def bubbles(self) -> Bubbles:
        """The chat window's entries for this exchange."""
        shown = [gr.ChatMessage(role="user", content=self.question)]
        if self.thought:
            status = "pending" if self.thinking else "done"
            metadata: Any = {"title": "💭 Thought", "status": status}
            shown.append(gr.ChatMessage(content=self.thought, metadata=metadata))
        if self.answer or not self.thought:
            shown.append(gr.ChatMessage(content=self.answer or "…"))
        if self.correction:
            corrected: Any = {"title": "✏️ Your correction, saved", "status": "done"}
            shown.append(gr.ChatMessage(content=self.correction, metadata=corrected))
        if self.note:
            shown.append(gr.ChatMessage(content=f"*{self.note}*"))
        return shown


@dataclass
class Page:
    """What one browser tab shows."""

    conversation_id: str = ""  # made with the first question: tabs start as copies of one page
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def last_answer_id(self) -> str | None:
        """The newest stored answer."""
        return self.exchanges[-1].answer_id if self.exchanges else None

    def bubbles(self) -> Bubbles:
        """The whole chat window."""
        return [bubble for exchange in self.exchanges for bubble in exchange.bubbles()]

    def exchange_at(self, index: int) -> Exchange:
        """The exchange the chat window's entry `index` belongs to."""
        for exchange in self.exchanges:
            index -= len(exchange.bubbles())
            if index < 0:
                return exchange
        raise gr.Error("This answer is gone.")


class ChatPage:
    """The handlers of the page, over one chat and one store."""

    def __init__(self, chat: Chat, store: FeedbackStore) -> None:
        self._chat = chat
        self._store = store
        self._stops: dict[str, StopButton] = {}  # one per browser tab with a running answer

    def ask(
        self, question: str, mode: str, page: Page, request: gr.Request
    ) -> Iterator[tuple[Bubbles, Page, str]]:
        """Stream the answer to a new question."""
        page.conversation_id = page.conversation_id or new_id()
        parent = page.last_answer_id
        page.exchanges.append(Exchange(question))
        stop = self._stop_button(request)
        updates = self._chat.ask(
            _user(request), question, conversation_id=page.conversation_id,
            parent_answer_id=parent, mode=mode, stop=stop,
        )  # fmt: skip
        yield from self._stream(page, updates, request, unsent=question)

    def regenerate(self, page: Page, request: gr.Request) -> Iterator[tuple[Bubbles, Page, Any]]:
        """Replace the last answer by another one; both stay in the store, as siblings."""
        if page.last_answer_id is None:
            raise gr.Error("There is no answer to regenerate yet.")
        answer_id = page.last_answer_id
        page.exchanges[-1] = Exchange(page.exchanges[-1].question)
        stop = self._stop_button(request)
        updates = self._chat.regenerate(_user(request), answer_id, stop=stop)
        yield from self._stream(page, updates, request, unsent="")

    def stop(self, request: gr.Request) -> None:
        """End this tab's running answer; also called when the tab closes."""
        if button := self._stops.get(str(request.session_hash)):
            button.press()

    def vote(self, page: Page, event: gr.LikeData, request: gr.Request) -> Page:
        """A thumb on one answer; taking the thumb back clears it."""
        exchange = page.exchange_at(int(event.index))  # type: ignore[arg-type]
        if exchange.answer_id is None:
            raise gr.Error("This answer was not saved; it cannot be voted on.")
        exchange.vote = THUMBS.get(event.liked, 0)
        with shown_errors():
            self._store.vote(exchange.answer_id, _user(request), exchange.vote)
        gr.Info("Thank you." if exchange.vote else "Vote taken back.", duration=2)
        return page

    def open_correction(self, page: Page) -> tuple[Any, str]:
        """Show the editor with the last answer in it."""
        if page.last_answer_id is None:
            raise gr.Error("There is no answer to correct yet.")
        return gr.update(visible=True), page.exchanges[-1].answer

    def correct(
        self, correction: str, page: Page, request: gr.Request
    ) -> tuple[Bubbles, Page, Any]:
        """Save the last answer as it should have been."""
        exchange = page.exchanges[-1]
        with shown_errors():
            assert exchange.answer_id is not None
            self._store.correct(exchange.answer_id, _user(request), correction)
        exchange.correction = correction
        gr.Info("Correction saved.", duration=2)
        return page.bubbles(), page, gr.update(visible=False)

    def _stream(
        self, page: Page, updates: Iterator[AnswerUpdate], request: gr.Request, unsent: str
    ) -> Iterator[tuple[Bubbles, Page, str]]:
        """Show each update. A refused question goes back into the box."""
        tab = str(request.session_hash)
        yield page.bubbles(), page, ""
        try:
            for update in updates:
                page.exchanges[-1].show(update)
                yield page.bubbles(), page, ""
        except BurnishError as error:
            refused = page.exchanges.pop()
            gr.Warning(str(error))
            yield page.bubbles(), page, unsent or refused.question
        finally:
            self._stops.pop(tab, None)

    def _stop_button(self, request: gr.Request) -> StopButton:
        button = StopButton()
        self._stops[str(request.session_hash)] = button
        return button


def build_chat_page(chat: Chat, store: FeedbackStore) -> gr.Blocks:
    """The page's widgets, wired to its handlers."""
    page = ChatPage(chat, store)
    with gr.Blocks(title="Burnish", fill_height=True, analytics_enabled=False) as blocks:
        state = gr.State(Page())
        window = gr.Chatbot(
            label=text("chat"), elem_id="chat", scale=1, height="65vh", buttons=["copy"],
            feedback_options=("Like", "Dislike"), sanitize_html=True,
            group_consecutive_messages=False, render_markdown=True, allow_tags=False,
        )  # fmt: skip
        with gr.Row(equal_height=True):
            question = gr.Textbox(
                placeholder=text("ask"), show_label=False, scale=8, autofocus=True,
                elem_id="question", lines=1, max_lines=8, submit_btn=False,
            )  # fmt: skip
            mode = gr.Dropdown(
                list(MODES), value=MODES[0], label=text("mode"), scale=2, elem_id="mode",
                min_width=120,
            )  # fmt: skip
            send = gr.Button(text("send"), variant="primary", scale=1, elem_id="send", min_width=80)
            stop = gr.Button(text("stop"), scale=1, elem_id="stop", min_width=80)
        with gr.Row():
            again = gr.Button(text("regenerate"), elem_id="regenerate", size="sm")
            correct = gr.Button(text("correct"), elem_id="correct", size="sm")
            new = gr.Button(text("new_chat"), elem_id="new-chat", size="sm")
        with gr.Column(visible=False) as editor:
            correction = gr.Textbox(label=text("correction"), lines=4, elem_id="correction")
            with gr.Row():
                save = gr.Button(text("save"), variant="primary", elem_id="save-correction")
                dismiss = gr.Button(text("cancel"))

        streamed: Any = [window, state, question]
        hidden: Any = {"api_visibility": "private"}
        gr.on(
            [send.click, question.submit], page.ask, [question, mode, state], streamed,
            concurrency_limit=None, **hidden,
        )  # fmt: skip
        again.click(page.regenerate, [state], streamed, concurrency_limit=None, **hidden)
        stop.click(page.stop, None, None, concurrency_limit=None, queue=False, **hidden)
        window.like(page.vote, [state], [state], **hidden)
        correct.click(page.open_correction, [state], [editor, correction], **hidden)
        save.click(page.correct, [correction, state], [window, state, editor], **hidden)
        dismiss.click(lambda: gr.update(visible=False), None, [editor], **hidden)
        gr.on([new.click, window.clear], lambda: ([], Page()), None, [window, state], **hidden)
        blocks.unload(page.stop)
    return blocks  # type: ignore[no-any-return]  # gradio types its context manager as Any


def _user(request: gr.Request) -> str:
    assert request.request is not None
    return user_of(request.request.session)
