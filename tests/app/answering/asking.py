"""A short way to ask a question in a chat."""

from __future__ import annotations

from typing import Any

from app.answering.answer_options import AnswerOptions
from app.answering.answering import AnswerUpdate, RunningAnswer
from app.answering.conversation import Chat
from engine.request import SamplingParams

GREEDY = SamplingParams(temperature=0, max_new_tokens=16, ignore_eos=True)
PLACE = ("conversation_id", "parent_answer_id")


def ask(chat: Chat, question: str, **more: Any) -> AnswerUpdate:
    """The end of an answer; `more` are options of it, or where the question stands."""
    *_, last = asked(chat, question, **more)
    return last


def asked(chat: Chat, question: str, **more: Any) -> RunningAnswer:
    place = {name: more.pop(name) for name in PLACE if name in more}
    options = AnswerOptions(**{"sampling": GREEDY, **more})
    return chat.ask("ann", question, options, **{"conversation_id": "c", **place})
