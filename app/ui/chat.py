"""The chat page: ask, stop, regenerate, vote, correct, report. Knows widgets; `app.conversation`
knows what a turn is.

A red flag (Report) keeps a text out of all training, and the operator sees it. The reason "unsafe"
of a thumb down is less: a bad answer to learn from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from app.conversation import AnswerUpdate, Chat
from app.running_answers import StopButton
from app.ui.blocks import PageBlocks
from app.ui.changes import changes_update, changes_view
from app.ui.compare import Comparisons, build_panel
from app.ui.errors import escaped, shown_errors
from app.ui.exchange import WINDOW, Exchange, Page, vote_of
from app.ui.reasons import Reasons, build_row, opened
from app.ui.session import Stops, last_answer, latest_updates, nothing, user
from app.ui.texts import text, toast
from engine.errors import BurnishError
from engine.messages import is_blank
from engine.prompts.modes import MODES
from feedback_store.curation import Curation
from feedback_store.explain import changes
from feedback_store.store import FeedbackStore, new_id

Streamed = tuple[Any, Any, Any, Any]  # chat window, state, question, panel of a comparison


class ChatPage:
    """The handlers of the page, over one chat and one store."""

    def __init__(self, chat: Chat, store: FeedbackStore, curation: Curation, stops: Stops) -> None:
        self._chat = chat
        self._store = store
        self._curation = curation
        self._stops = stops

    async def ask(
        self, question: str | None, mode: str, page: Page, request: gr.Request
    ) -> AsyncIterator[Streamed]:
        """Stream the answer to a new question. An empty one is none: Send was pressed twice."""
        if question is None or is_blank(question):
            yield page.window(), page, "", gr.skip()
            return
        await run_sync(self._leave_comparison, page, request)
        page.conversation_id = page.conversation_id or new_id()
        parent = page.last_answer_id
        exchange = Exchange(question)
        page.exchanges.append(exchange)

        def begin(stop: StopButton) -> Iterator[AnswerUpdate]:
            return self._chat.ask(
                user(request), question, conversation_id=page.conversation_id,
                parent_answer_id=parent, mode=mode, stop=stop,
            )  # fmt: skip

        def undo() -> str:
            page.replace(exchange)
            return question

        async for shown in self._stream(page, exchange, begin, request, undo):
            yield shown

    async def regenerate(self, page: Page, request: gr.Request) -> AsyncIterator[Streamed]:
        """Replace the last answer by another one; both stay in the store, as siblings."""
        await run_sync(self._stops.leave, request)
        await run_sync(self._leave_comparison, page, request)
        answer_id = last_answer(page, request)
        before = page.exchanges[-1]
        exchange = Exchange(before.question)
        page.replace(before, exchange)

        def begin(stop: StopButton) -> Iterator[AnswerUpdate]:
            return self._chat.regenerate(user(request), answer_id, stop=stop)

        def undo() -> str:
            page.replace(exchange, before)
            return ""

        async for shown in self._stream(page, exchange, begin, request, undo):
            yield shown

    def put_away(self, page: Page, request: gr.Request) -> tuple[Any, ...]:
        """The page without what is about earlier answers, before the next one is made."""
        self._leave_comparison(page, request)
        page.judged = None
        gone = gr.update(visible=False)
        # What the window holds is drawn by the event that follows: an answer may be running, whose
        # last words this would be drawn over
        return page, gr.update(visible=True), gone, gone, *opened(None)

    def begin_anew(self, page: Page, request: gr.Request) -> tuple[Any, Page]:
        """An empty page; an answer that is still being made for the old one is stopped."""
        page.left = True
        self._stops.leave(request)
        return [], Page()

    def vote(self, page: Page, event: gr.LikeData, request: gr.Request) -> tuple[Any, ...]:
        """A thumb on one answer; taking the thumb back clears it. Then ask why."""
        exchange = page.exchange_at(event.index)
        if exchange is None or exchange.answer_id is None:
            raise gr.Error(toast("vote_unsaved" if exchange else "answer_gone", request))
        vote = vote_of(event.liked)
        with shown_errors():
            self._store.vote(exchange.answer_id, user(request), vote)
        exchange.vote = vote
        gr.Info(toast("thanks" if vote else "vote_cleared", request), duration=2)
        page.judged = exchange if vote else None
        thumbs = gr.update(feedback_value=page.window()["feedback_value"])
        return page, thumbs, *opened(page.judged)

    def copied(self, page: Page, event: gr.CopyData, request: gr.Request) -> None:
        """Note that an answer was copied; the event says only what the window holds of it."""
        exchange = page.exchange_copied(str(event.value))
        if exchange is not None and exchange.answer_id is not None:
            with shown_errors():
                self._store.note(exchange.answer_id, user(request), "copy")

    def report(self, page: Page, request: gr.Request) -> None:
        """A red flag on the last answer."""
        with shown_errors():
            self._store.note(last_answer(page, request), user(request), "flag")
        gr.Info(toast("reported", request), duration=4)

    def open_correction(self, page: Page, request: gr.Request) -> tuple[Any, str]:
        """Show the editor with the last answer in it."""
        last_answer(page, request)
        return gr.update(visible=True), page.exchanges[-1].answer

    def correct(self, correction: str | None, page: Page, request: gr.Request) -> tuple[Any, ...]:
        """Save the last answer as it should have been and show what is different."""
        correction = correction or ""
        answer_id, exchange = last_answer(page, request), page.exchanges[-1]
        with shown_errors():
            self._store.correct(answer_id, user(request), correction)
        exchange.correction = correction
        gr.Info(toast("correction_saved", request), duration=2)
        changed = changes_update(changes(exchange.answer, correction))
        return page.window(), page, gr.update(visible=False), changed

    def consent(self, request: gr.Request) -> bool:
        """Whether the person's conversations may be trained on."""
        return self._curation.consents(user(request))

    def set_consent(self, allowed: bool, request: gr.Request) -> None:
        """What the person says about that from now on."""
        with shown_errors():
            self._curation.set_consent(user(request), allowed)
        gr.Info(toast("saved", request), duration=2)

    def _leave_comparison(self, page: Page, request: gr.Request) -> None:
        """Stop a second answer that nobody waits for any more. One may have begun since the page
        was put away."""
        if page.comparing is not None:
            page.comparing = None
            self._stops.leave(request)

    async def _stream(
        self,
        page: Page,
        exchange: Exchange,
        begin: Callable[[StopButton], Iterator[AnswerUpdate]],
        request: gr.Request,
        undo: Callable[[], str],
    ) -> AsyncIterator[Streamed]:
        """Show each update of the answer in its exchange. `undo` takes a refused one off the page
        and returns what goes back into the question's box."""
        stop = StopButton()
        try:
            self._stops.begin(stop, request)
            yield gr.update(visible=True, **page.window()), page, "", gr.update(visible=False)
            async for update in latest_updates(begin(stop)):
                if page.left:
                    yield nothing(4)
                    return
                exchange.show(update)
                yield page.window(), page, gr.skip(), gr.skip()
        except BurnishError as error:
            unsent = undo()
            gr.Warning(escaped(error))
            yield page.window(), page, unsent or gr.skip(), gr.skip()
        except Exception:
            undo()  # the page goes on without it
            raise
        finally:
            self._stops.end(stop)


def build_chat_page(
    chat: Chat, store: FeedbackStore, curation: Curation, max_unfinished: int
) -> gr.Blocks:
    """The page's widgets, wired to its handlers. One person has `max_unfinished` running answers at
    most."""
    stops = Stops(max_unfinished)
    page = ChatPage(chat, store, curation, stops)
    with PageBlocks(title="Burnish", fill_height=True) as blocks:
        state = gr.State(Page())
        window = gr.Chatbot(
            label=text("chat"), elem_id="chat", buttons=["copy"],
            feedback_options=("Like", "Dislike"), **WINDOW,
        )  # fmt: skip
        panel, why = build_panel(), build_row()
        changed = changes_view()
        question, mode, send, stop = _question_row()
        with gr.Row():
            again, compare, correct, report, new = (
                gr.Button(text(key), elem_id=key.replace("_", "-"), size="sm", min_width=100)
                for key in ("regenerate", "compare", "correct", "report", "new_chat")
            )
        with gr.Column(visible=False) as editor:
            correction = gr.Textbox(label=text("correction"), lines=4, elem_id="correction")
            with gr.Row():
                save = gr.Button(text("save"), variant="primary", elem_id="save-correction")
                dismiss = gr.Button(text("cancel"))
        consent = gr.Checkbox(label=text("consent"), elem_id="consent", container=False)

        streamed: Any = [window, state, question, panel.panel]
        hidden: Any = {"api_visibility": "private"}
        unlimited: Any = {"concurrency_limit": None, **hidden}

        def tidy(*triggers: Any) -> Any:
            shown: Any = [state, window, panel.panel, changed, *why.widgets]
            return gr.on(
                triggers, page.put_away, [state], shown, show_progress="hidden", **unlimited
            )

        asked = tidy(send.click, question.submit)
        asked.then(page.ask, [question, mode, state], streamed, **unlimited)
        tidy(again.click).then(page.regenerate, [state], streamed, **unlimited)
        panel.wire(Comparisons(chat, store, stops), tidy(compare.click), state, window)
        tidy(new.click, window.clear).then(page.begin_anew, [state], [window, state], **unlimited)
        stop.click(stops.press, None, None, queue=False, **unlimited)
        # "multiple": else a click while the one before is on its way would be lost
        every: Any = {"trigger_mode": "multiple", **unlimited}
        window.like(page.vote, [state], [state, window, *why.widgets], **every)
        window.copy(page.copied, [state], None, **every)
        why.wire(Reasons(store), state)
        report.click(page.report, [state], None, **hidden)
        correct.click(page.open_correction, [state], [editor, correction], **hidden)
        save.click(page.correct, [correction, state], [window, state, editor, changed], **hidden)
        dismiss.click(lambda: gr.update(visible=False), None, [editor], **hidden)
        consent.input(page.set_consent, [consent], None, **hidden)
        blocks.load(page.consent, None, [consent], **hidden)
        blocks.unload(stops.press)
    return blocks  # type: ignore[no-any-return]  # gradio types its context manager as Any


def _question_row() -> tuple[gr.Textbox, gr.Dropdown, gr.Button, gr.Button]:
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
    return question, mode, send, stop
