"""Value types of the store. Knows nothing of SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.messages import Message

Vote = Literal[-1, 0, 1]
AnswerStatus = Literal["streaming", "done", "stopped", "failed", "aborted"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a person asked, and what the model was shown for it."""

    id: str
    conversation_id: str
    parent_answer_id: str | None
    user_id: str
    question: str
    mode: str
    template_hash: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply to a turn. `complete` says that the model ended it itself."""

    id: str
    turn_id: str
    status: AnswerStatus
    text: str
    thought: str
    complete: bool
    base_digest: str
    adapter_digest: str | None
    sampling: Mapping[str, Any]
    seed: int
    prompt_tokens: int | None
    completion_tokens: int | None
    created_at: float


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A preference from elsewhere. A side that is not complete was cut off."""

    prompt: tuple[Message, ...]
    better: str
    worse: str
    better_complete: bool = True
    worse_complete: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """One turn with its answers and what people say of them now: all that pairing looks at.

    Votes and corrections are (event id, answer id, user id, value), in the order they came.
    """

    turn: Turn
    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]
    votes: tuple[tuple[int, str, str, int], ...]
    corrections: tuple[tuple[int, str, str, str], ...]
