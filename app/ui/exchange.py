"""What one browser tab of the chat shows: questions, answers, two answers side by side.

Each entry of the chat window belongs to an exchange, and an exchange shows one answer. Knows how
these look in gradio's chat window; knows nothing of handlers and stores, and leaves the text itself
to `app.ui.rendering`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from app.conversation import AnswerUpdate
from app.ui.copying import with_source
from app.ui.markdown import DISPLAYED, MATH_DELIMITERS
from app.ui.rendering import answer_html, open_ended, plain_html
from feedback_store.records import Vote

Bubbles = list[gr.ChatMessage]
HIGHLIGHTS: dict[Vote, str | None] = {1: "Like", -1: "Dislike", 0: None}
# How a chat window draws what `Exchange.bubbles` gives it. The text is HTML already, and it is
# looked through once more in the browser.
WINDOW: dict[str, Any] = {
    "render_markdown": False,
    "sanitize_html": True,
    "group_consecutive_messages": False,
    "elem_classes": "window",
    "latex_delimiters": [
        {"left": left, "right": right, "display": left in DISPLAYED}
        for left, right in MATH_DELIMITERS
    ],
}


def vote_of(liked: object) -> Vote:
    """The vote of gradio's like event: True, False, or a string for a thumb taken back."""
    return 1 if liked is True else -1 if liked is False else 0


@dataclass
class Exchange:
    """One question with the answer shown for it."""

    question: str
    answer_id: str | None = None
    thought: str = ""
    answer: str = ""
    growing: bool = False  # more of it is to come
    note: str = ""
    vote: Vote = 0
    correction: str = ""

    def show(self, update: AnswerUpdate) -> None:
        """Take over what the stream says."""
        self.answer_id, self.thought, self.answer = update.answer_id, update.thought, update.text
        self.growing = update.status == "streaming"
        self.note = update.note
        if update.status == "stopped":
            self.note = "Stopped."

    @property
    def thinking(self) -> bool:
        """Whether the answer has not begun yet, while more is to come."""
        return self.growing and not self.answer

    def bubbles(self) -> Bubbles:
        """The chat window's entries for this exchange."""
        shown = [_bubble(plain_html(self.question), self.question, role="user")]
        if self.thought:
            title = "💭 Thought" if self.answer or self.thinking else "💭 Thought, unfinished"
            metadata: Any = {"title": title, "status": "pending" if self.thinking else "done"}
            shown.append(self._drawn(self.thought, metadata=metadata))
        if self.answer or not self.thought:
            shown.append(self._drawn(self.answer))
        if self.correction:
            corrected: Any = {"title": "✏️ Your correction, saved", "status": "done"}
            shown.append(_bubble(answer_html(self.correction), self.correction, metadata=corrected))
        if self.note:
            shown.append(_bubble(f"<em>{plain_html(self.note)}</em>", self.note))
        return shown

    def was_copied(self, content: str) -> bool:
        """Whether this is what the chat window holds of the answer, or held while it grew."""
        html = answer_html(self.answer)
        return bool(self.answer) and content in (with_source(html, self.answer), open_ended(html))

    def _drawn(self, said: str, **rest: Any) -> gr.ChatMessage:
        """A message with thought or answer. While it grows, closing tags are left out, so that the
        next HTML extends this one and gradio sends the difference alone."""
        html = answer_html(said or "…")
        if self.growing:
            return gr.ChatMessage(content=[_part(open_ended(html))], **rest)
        return _bubble(html, said, **rest)

    def bare(self, shown_chars: int | None = None) -> Exchange:
        """Question and answer alone; of thought and answer the first `shown_chars` characters."""
        alone = replace(self, note="", correction="", vote=0)
        if shown_chars is None:
            return alone
        rest = max(0, shown_chars - len(self.thought))
        return replace(
            alone, thought=self.thought[:shown_chars], answer=self.answer[:rest], growing=True
        )


@dataclass
class Comparing:
    """Two answers to one question side by side. Nothing says which of them was there first: the
    sides are drawn by lot, and while the second is being made the first grows at its pace."""

    first: Exchange
    second: Exchange
    first_is_left: bool
    done: bool = False  # the second answer has ended and both can be judged

    @property
    def sides(self) -> tuple[Exchange, Exchange]:
        """Left and right."""
        both = self.first, self.second
        return both if self.first_is_left else both[::-1]

    def bubbles(self) -> tuple[Bubbles, Bubbles]:
        """The entries of the left and the right window."""
        pace = None if self.done else len(self.second.thought) + len(self.second.answer)
        left, right = (side.bare(pace).bubbles() for side in self.sides)
        return left, right


@dataclass
class Page:
    """What one browser tab shows."""

    conversation_id: str = ""  # made with the first question: tabs start as copies of one page
    exchanges: list[Exchange] = field(default_factory=list)
    judged: Exchange | None = None  # whose thumb is being explained
    comparing: Comparing | None = None
    left: bool = False  # another conversation has taken its place; running answers show no more

    @property
    def last_answer_id(self) -> str | None:
        """The newest stored answer."""
        return self.exchanges[-1].answer_id if self.exchanges else None

    def window(self) -> Any:
        """The whole chat window: its entries, and the thumb that each answer has."""
        bubbles = [(b, e.vote) for e in self.exchanges for b in e.bubbles()]
        thumbs = [HIGHLIGHTS[vote] for bubble, vote in bubbles if bubble.role == "assistant"]
        return gr.update(value=[bubble for bubble, _ in bubbles], feedback_value=thumbs)

    def replace(self, old: Exchange, *new: Exchange) -> None:
        """Put other exchanges, or none, in the place of one."""
        self.exchanges = [e for each in self.exchanges for e in (new if each is old else [each])]

    def exchange_at(self, index: object) -> Exchange | None:
        """The exchange the chat window's entry `index` belongs to; None for what is no entry."""
        if not isinstance(index, int) or index < 0:
            return None
        for exchange in self.exchanges:
            index -= len(exchange.bubbles())
            if index < 0:
                return exchange
        return None

    def exchange_copied(self, content: str) -> Exchange | None:
        """The newest exchange whose answer the chat window holds as `content`."""
        return next((e for e in reversed(self.exchanges) if e.was_copied(content)), None)


def _bubble(html: str, source: str, **rest: Any) -> gr.ChatMessage:
    return gr.ChatMessage(content=[_part(with_source(html, source))], **rest)


def _part(content: str) -> Any:
    """Text as a message part, which gradio leaves unchanged; in a bare string it changes tabs and
    indentation."""
    return {"type": "text", "text": content}
