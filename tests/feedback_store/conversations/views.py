"""Short ways to look at a conversation as it is shown."""

from __future__ import annotations

from feedback_store.conversations.conversation_list import Conversations, ShownTurn


def shown(conversations: Conversations, conversation_id: str = "c1") -> list[tuple[str, str]]:
    """Question and answer of each turn that is shown."""
    turns = conversations.view(conversation_id, "ann").turns
    return [(turn.turn.question, turn.answer.text) for turn in turns]


def last(conversations: Conversations) -> ShownTurn:
    return conversations.view("c1", "ann").turns[-1]
