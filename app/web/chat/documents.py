"""JSON documents of the chat page: conversations, turns and answers, with texts as HTML.

Knows the store's views and how texts are rendered; knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.answering.answer_elsewhere import FollowedAnswer
from app.answering.answering import AnswerUpdate
from app.html.changes import changes_html
from app.html.incremental_html import IncrementalHtml
from app.html.rendering import answer_html, plain_html
from app.texts import translated
from engine.prompts.reasoning import untagged
from engine.storage import short_id
from feedback_store.ai_feedback.comparison_queue import WaitingComparison
from feedback_store.conversations.conversation_list import (
    ConversationSummary,
    FoundConversation,
    ShownTurn,
)
from feedback_store.documents.support import judged_sentences
from feedback_store.examples.explanation import changes
from feedback_store.records import StoredAnswer

# The parameters that an answer's details show
SHOWN_SAMPLING = ("temperature", "top_p", "max_new_tokens", "seed", "change", "thinking")
CONTINUABLE = ("stopped", "failed", "aborted")
UNSUPPORTED = "\ue000"  # stands behind a sentence; a private-use character, in no text
Passages = Sequence[Mapping[str, Any]]


def summary_document(summary: ConversationSummary) -> dict[str, Any]:
    """Return an entry of the side bar."""
    return {
        "id": summary.id,
        "title": summary.title,
        "pinned": summary.pinned,
        "at": summary.updated_at,
    }


def found_document(found: FoundConversation) -> dict[str, Any]:
    """Return a search hit, with the words around it."""
    return {**summary_document(found.summary), "excerpt": found.excerpt}


def turn_document(turn: ShownTurn, language: str) -> dict[str, Any]:
    """Return a turn with the answer that is shown for it."""
    corrected = turn.correction
    return {
        "id": turn.turn.id,
        "follows": turn.turn.parent_answer_id,
        "question": turn.turn.question,
        "question_html": plain_html(turn.turn.question),
        "siblings": turn.siblings,
        "answers": turn.answers,
        "mode": turn.turn.mode,
        "at": turn.created_at,
        "examples": turn.example_ids,
        "vote": turn.vote,
        "reasons": turn.reasons,
        "comment": turn.comment,
        "flagged": turn.flagged,
        "passages": passage_documents(turn.passages),
        "correction": corrected,
        "correction_html": answer_html(corrected) if corrected else "",
        "changes_html": changes_html(changes(turn.answer.text, corrected)) if corrected else "",
        "answer": answer_document(turn.answer, language, turn.passages),
    }


def passage_documents(passages: Passages | None) -> list[dict[str, Any]]:
    """Return the passages that an answer may cite, in the order of their numbers."""
    return [
        {
            "source": each["source"],
            "page": each.get("page"),
            "heading": each.get("heading", ""),
            "text_html": answer_html(each["text"]),
        }
        for each in passages or ()
    ]


def grounded_html(text: str, passages: Passages | None) -> str:
    """Return an answer's HTML with the number of the passage that supports it after each sentence
    that cites none, and a mark after each one that no passage supports.

    The mark is one character that the page's script draws, since it can say what it means.
    """
    text = text.replace(UNSUPPORTED, "") if passages else text
    for sentence in reversed(list(judged_sentences(text, passages or ()))):
        if sentence.passage is None:
            text = text[: sentence.end] + UNSUPPORTED + text[sentence.end :]
        elif not sentence.cites:
            text = f"{text[: sentence.end]} [{sentence.passage}]{text[sentence.end :]}"
    return answer_html(text) if text else ""


def waiting_document(waiting: WaitingComparison) -> dict[str, Any]:
    """Return a comparison that waits: the messages before, the question, and the two answers.

    It says nothing of how the answers were made; thoughts are not compared.
    """
    *before, question = (m for m in waiting.messages if m.role != "system")
    return {
        "id": waiting.id,
        "before": [{"role": each.role, "html": plain_html(each.transcript)} for each in before],
        "question_html": plain_html(question.content),
        "first": answer_html(waiting.first.text),
        "second": answer_html(waiting.second.text),
    }


def answer_document(
    answer: StoredAnswer, language: str, passages: Passages | None = None
) -> dict[str, Any]:
    """Return a stored answer and how it was generated."""
    thought = untagged(answer.thought)
    return {
        "id": answer.id,
        "status": answer.status,
        "html": grounded_html(answer.text, passages),
        "thought_html": answer_html(thought) if thought else "",
        "continuable": answer.status in CONTINUABLE
        or (answer.status == "done" and not answer.complete),
        "cut": answer.status == "done" and not answer.complete,
        "error": translated(answer.error or "", language),
        "release": short_release(answer.adapter_digest),
        "sampling": {n: v for n, v in answer.sampling.items() if n in SHOWN_SAMPLING},
        "votes": _votes(answer.sampling.get("samples", 0), answer.sampling.get("votes", ())),
        "called": answer.tool_calls,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.completion_tokens,
        "seconds": _seconds(answer.first_token_at, answer.finished_at),
        "wait_seconds": _seconds(answer.created_at, answer.first_token_at),
    }


def _votes(samples: int, tally: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
    """Return how many chains of thought led to each answer, in descending order."""
    return {"samples": samples, "tally": tally} if tally else None


def short_release(digest: str | None) -> str:
    """Return the beginning of an adapter's digest, as shown everywhere; "" for the base."""
    return short_id(digest) if digest else ""


def _unstored(update: AnswerUpdate) -> dict[str, Any]:
    """Return what the page would read from the store, of an answer that is not stored."""
    cited = passage_documents(update.passages)
    html = grounded_html(update.text, update.passages) if cited else ""
    return {"text": update.text, "passages": cited, "grounded_html": html}


def _seconds(begun: float | None, ended: float | None) -> float | None:
    return None if begun is None or ended is None else round(max(0.0, ended - begun), 3)


class AnswerStreamRenderer:
    """Renders the updates of a running answer for one page, as patches of its HTML."""

    def __init__(self, live: FollowedAnswer) -> None:
        self._live = live
        self._thought, self._answer = IncrementalHtml(), IncrementalHtml()
        self._shown = ("", "")

    def patches(self, update: AnswerUpdate) -> list[tuple[str, int, str]]:
        """Return (part, keep, tail) for each part that changed ("t" thought, "a" answer): the
        number of UTF-16 units of its HTML to keep, and the HTML after them."""
        last = update.status != "streaming"
        parts = (
            ("t", self._thought, update.thought, self._shown[0]),
            ("a", self._answer, update.text, self._shown[1]),
        )
        self._shown = update.thought, update.text
        return [
            (name, *html.update(text, last=last))
            for name, html, text, shown in parts
            if text != shown or (last and text)
        ]

    def end(self, update: AnswerUpdate, language: str) -> dict[str, Any]:
        """Return how the answer ended, beyond what the page reads from the store."""
        begun, ended = self._live.begun_at, self._live.thought_ended_at
        return {
            "id": update.answer_id,
            "status": update.status,
            "release": short_release(update.adapter),
            **({} if self._live.conversation_id else _unstored(update)),
            "note": " ".join(translated(each, language) for each in update.note.split("\n")),
            "votes": _votes(update.chains[1] if update.chains else 0, update.votes),
            "thought_seconds": _seconds(begun, ended) if update.thought else None,
        }
