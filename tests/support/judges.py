"""Judges and reward models that follow a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.messages import Message


@dataclass(frozen=True)
class ScriptedJudge:
    """Stands for a `tuning.judge.Judge`: a rule of the two answers in the order they are shown."""

    rule: Callable[[str, str], Literal["A", "B"] | None]
    name: str = "scripted"

    def choose(self, prompt: Sequence[Message], a: str, b: str) -> Literal["A", "B"] | None:
        return self.rule(a, b)


class LengthScorer:
    """Stands for a reward model: the number of characters, one more for an answer that ended."""

    def score(self, prompt: Sequence[Message], answer: str, *, complete: bool = True) -> float:
        return len(answer) + complete
