"""Requests that another chat page makes for itself: titles, tags, questions to ask next.

Nobody asked them and nobody can judge their answers, so nothing of them is stored. Open WebUI
sends them like any other request. Its administrator can tell them apart by a header of the
connection, `X-OpenWebUI-Task: {{TASK}}`, which is empty for what a person asks; without it they are
known by the shape that Open WebUI's own prompts for tasks have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.messages import Message

TASK_HEADER = "X-OpenWebUI-Task"
TASK_BEGINS, HISTORY_MARKS = "### Task:\n", ("<chat_history>", "</chat_history>")


def is_page_task(headers: Mapping[str, str], messages: Sequence[Message]) -> bool:
    """Return whether a chat page asks for itself. The header, where there is one, decides."""
    named = headers.get(TASK_HEADER)
    if named is not None:
        return bool(named.strip())
    asked = [message for message in messages if message.role != "system"]
    if len(asked) != 1 or asked[0].role != "user":
        return False
    text = asked[0].content
    return text.startswith(TASK_BEGINS) and all(mark in text for mark in HISTORY_MARKS)
