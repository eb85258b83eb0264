"""Open WebUI's "Export chats": a JSON array of conversations.

A row has `id`, `title`, `created_at`, `updated_at` and in `chat.history` its `messages` by id, each
naming its parent, and the newest one (`currentId`). A message is as in the export of ratings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from engine.prompts.reasoning import split_reasoning, with_opening
from feedback_store.formats.chats import ChatTree, Node, chat_turns, moment, words
from feedback_store.formats.fields import RawRow, as_mapping, mapping
from feedback_store.formats.openwebui import model_of, unfolded
from feedback_store.formats.turns import Options
from feedback_store.records import ImportedTurn

OPEN_WEBUI_ROLES: dict[object, Literal["user", "assistant"]] = {
    "user": "user",
    "assistant": "assistant",
}


def is_open_webui_chat(row: RawRow) -> bool:
    """Return whether a row is a whole conversation."""
    chat = row["chat"]
    return isinstance(chat, dict) and isinstance(chat.get("history"), dict)


def open_webui_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """One turn for each question that has an answer."""
    del options  # nobody says anything of an answer
    chat = mapping(row, "chat")
    history, params = mapping(chat, "history"), chat.get("params")
    said = mapping(history, "messages")
    return chat_turns(
        ChatTree(
            id=words(row, "id"),
            title=words(row, "title") or words(chat, "title"),
            time=moment(row.get("updated_at")) or moment(row.get("created_at")),
            nodes=[_node(name, as_mapping(each, "messages")) for name, each in said.items()],
            current=words(history, "currentId"),
            system=words(params, "system") if isinstance(params, dict) else "",
        )
    )


def _node(name: str, row: RawRow) -> Node:
    parent, role, content = words(row, "parentId"), row.get("role"), _content(row)
    if not isinstance(role, str) or role not in OPEN_WEBUI_ROLES:
        return Node(name, parent)
    if role == "user":
        return Node(name, parent, "user", content, time=moment(row.get("timestamp")))
    said = split_reasoning(with_opening(unfolded(content)))
    return Node(
        name,
        parent,
        "assistant",
        said.answer,
        said.thought,
        complete=row.get("done") is not False,
        model=model_of(row),
    )


def _content(row: RawRow) -> str:
    """A message's words; pictures are in another key, or parts of another type."""
    content = row.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
