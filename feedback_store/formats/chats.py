"""Conversations of another chat page: a tree of messages becomes turns.

A question and all that was said to it until the next one make a turn. An edited question has the
same parent as the one before; an answer that was made again is another answer of the same turn.
What a tool was told and gave back is left out, the answer's own words are kept: these conversations
are read and gone on with, and nobody has judged them. Knows trees; `chatgpt` and `openwebui_chats`
know what the files look like.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.errors import InvalidText
from engine.messages import Message, clean_text, is_blank
from engine.prompts.reasoning import Reasoned
from engine.storage import digest_json
from feedback_store.formats.fields import RawRow, UnusableRecord
from feedback_store.records import ImportedAnswer, ImportedTurn

NO_ANSWER = "a conversation without an answer in words"
NO_TEXT = "a text that is too long or cannot be stored"
FIRST_MILLISECONDS = 1e11  # a larger time is not in seconds: they reach it in the year 5138


@dataclass(frozen=True, slots=True)
class Node:
    """A message in its tree. One of a tool or of the page has no role and joins those around it.

    Of several with the same parent, the order is that in which they were made.
    """

    id: str
    parent: str
    role: Literal["user", "assistant", ""] = ""
    text: str = ""
    thought: str = ""
    complete: bool = True
    model: str = ""
    time: float | None = None


@dataclass(frozen=True, slots=True)
class ChatTree:
    """A conversation: all that was ever said in it, and the message that it was left at."""

    id: str
    title: str
    time: float | None
    nodes: Sequence[Node]
    current: str
    system: str = ""


@dataclass
class _Question:
    """A question with its answers, each by the message that ends it."""

    node: Node
    before: tuple[Message, ...]
    answers: dict[str, ImportedAnswer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """The state of a walk down the tree: what was said, the open question, its answer."""

    before: tuple[Message, ...]
    question: _Question | None = None
    answer: tuple[Node, ...] = ()

    def close(self) -> tuple[Message, ...]:
        """Give the open question its answer; returns all that was said. Without both, it was not
        said."""
        said = [node for node in self.answer if not is_blank(node.text)]
        if self.question is None or not said:
            return self.before
        text = "\n\n".join(node.text for node in said)
        thoughts = "\n\n".join(node.thought for node in self.answer if node.thought)
        thought = Reasoned(thoughts, text, in_block=bool(thoughts)).stored_thought
        last = said[-1]
        self.question.answers[last.id] = ImportedAnswer(
            _clean(text), _clean(thought), complete=last.complete, model=_clean(last.model)
        )
        question = Message("user", self.question.node.text)
        return (*self.before, question, Message("assistant", text))


def chat_turns(chat: ChatTree) -> Iterator[ImportedTurn]:
    """One turn for each question that has an answer, the first one first.

    Raises `UnusableRecord` where there is none, or where a text cannot be stored.
    """
    questions = [question for question in _questions(chat) if question.answers]
    if not questions:
        raise UnusableRecord(NO_ANSWER)
    ends = {end for question in questions for end in question.answers}
    name = _clean(chat.id) or digest_json(sorted(node.id for node in chat.nodes))
    left_at = next((each for each in _path_up(chat) if each in ends), "")
    for question in questions:
        last = Message("user", _clean(question.node.text))
        yield ImportedTurn(
            prompt=(*question.before, last),
            answers=tuple(question.answers.values()),
            conversation=name,
            title=_clean(chat.title),
            time=chat.time if question.node.time is None else question.node.time,
            left_at=list(question.answers).index(left_at) if left_at in question.answers else None,
        )


def moment(found: object) -> float | None:
    """A time in seconds since 1970, from seconds or milliseconds; None where it is none, or to
    come."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    seconds = found / 1000 if found > FIRST_MILLISECONDS else float(found)
    return seconds if 0 < seconds <= time.time() else None


def words(row: RawRow, key: str) -> str:
    """The text that stands there; "" where there is none. `chat_turns` sees if it can be stored."""
    found = row.get(key)
    return found if isinstance(found, str) else ""


def _questions(chat: ChatTree) -> Iterable[_Question]:
    """Every question of the tree with what went before it, in the order of a walk down."""
    known = {node.id for node in chat.nodes}
    below: dict[str, list[Node]] = defaultdict(list)
    for node in chat.nodes:
        below[node.parent if node.parent in known else ""].append(node)
    questions: list[_Question] = []
    system = () if is_blank(chat.system) else (Message("system", _clean(chat.system)),)
    waiting = [(node, _Place(system)) for node in reversed(below[""])]
    while waiting:
        node, place = waiting.pop()
        if node.role == "user":
            before, question = place.close(), None
            if not is_blank(node.text):
                question = _Question(node, before)
                questions.append(question)
            place = _Place(before, question)
        elif node.role == "assistant":
            place = replace(place, answer=(*place.answer, node))
        following = below.get(node.id, ())
        if not following:
            place.close()
        waiting += [(each, place) for each in reversed(following)]
    return questions


def _path_up(chat: ChatTree) -> Iterator[str]:
    """The messages from the one that the conversation was left at up to the first."""
    parents = {node.id: node.parent for node in chat.nodes}
    at = chat.current
    while at in parents:
        yield at
        at = parents.pop(at)


def _clean(text: str) -> str:
    try:
        return clean_text(text)
    except InvalidText:
        raise UnusableRecord(NO_TEXT) from None
