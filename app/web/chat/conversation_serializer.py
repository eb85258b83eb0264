"""Reads conversations and turns from the store and serializes them for the chat page."""

from __future__ import annotations

from typing import Any

from app.answering.answer_elsewhere import FollowedAnswer
from app.answering.live_answers import LiveAnswers
from app.web.chat.documents import summary_document, turn_document
from engine.errors import UnknownId
from feedback_store.conversations.conversation_list import (
    Conversations,
    ConversationView,
    ShownTurn,
)
from feedback_store.storage.store import FeedbackStore

PAGE_TURNS = 30  # turns of a long conversation in one response


class ConversationSerializer:
    """Serializes stored conversations, together with their running answers."""

    def __init__(
        self, conversations: Conversations, store: FeedbackStore, live: LiveAnswers
    ) -> None:
        self._conversations = conversations
        self._store = store
        self._live = live

    def conversation(
        self, conversation_id: str, user: str, language: str, before: str | None = None
    ) -> dict[str, Any]:
        """Return the newest turns, or those before the turn `before`, and the running answers."""
        view = self._conversations.view(conversation_id, user)
        turns = _turns_before(view, before)
        return {
            **summary_document(view.summary),
            "system": view.system,
            "turns": [turn_document(turn, language) for turn in turns[-PAGE_TURNS:]],
            "earlier": len(turns) > PAGE_TURNS,
            "running": [
                *(a.id for a in self._live.of_conversation(conversation_id, user)),
                *self._store.streaming_elsewhere(conversation_id, user),
            ],
        }

    def turn(self, live: FollowedAnswer, language: str) -> dict[str, Any] | None:
        """Return the turn of a running or ended answer; None if it is not stored, or deleted."""
        if live.conversation_id is None or live.latest.answer_id is None:
            return None
        try:
            view = self._conversations.view(live.conversation_id, live.user_id)
        except UnknownId:  # forgotten in another window, while this page read the answer's end
            return None
        shown = next((t for t in view.turns if live.id in t.answers), None)
        if shown is None:
            return None
        return {
            "conversation": summary_document(view.summary),
            "turn": turn_document(shown, language),
        }


def _turns_before(view: ConversationView, before: str | None) -> tuple[ShownTurn, ...]:
    ids = [turn.turn.id for turn in view.turns]
    return view.turns[: ids.index(before)] if before in ids else view.turns
