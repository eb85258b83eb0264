"""An engine whose adapters are known by how they speak: for the tests of evaluation and gate.

A voice says what it answers to a prompt and how it likes a completion. One word, or one Chinese
character, is a token. Nothing is decoded and everything is at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from engine.messages import Message
from engine.request import Engine, Finished, GenerationRequest, Score, ScoreRequest

TOKEN = re.compile(r"[\u4e00-\u9fff，。]|\s*[^\s\u4e00-\u9fff，。]+")
GOOD_FORMS = {
    "JSON": '{"name": "Anna", "age": 30}',
    "code block": "```python\nprint(1 + 2)\n```",
    "代码块": "```python\nprint('你好')\n```",
    "bullet": "- apple\n- pear\n- plum\n- fig",
    "numbered": "1. Boil water.\n2. Pour it over the leaves.\n3. Wait.",
    "列表": "- 红色\n- 蓝色\n- 绿色",
    "Answer:": "First we count what there is, then what is gone.\nAnswer: ten",
}


@dataclass(frozen=True)
class Voice:
    """How one adapter speaks. `likes` is the log-probability of each token of a completion."""

    answers: Callable[[str], str]
    likes: Callable[[str], float] = lambda completion: -1.0
    ends: bool = True  # whether its answers come to an end at all


class PlayedEngine:
    """Stands for an `Engine` with its adapters loaded; None is the base."""

    def __init__(self, voices: Mapping[str | None, Voice]) -> None:
        self.requests: list[GenerationRequest] = []
        self.scored: list[ScoreRequest] = []
        self._voices = voices

    @property
    def as_engine(self) -> Engine:
        """This double where an `Engine` is asked for; what is not here is not called."""
        return cast(Engine, self)

    def submit_many(self, requests: Sequence[GenerationRequest]) -> list[PlayedStream]:
        self.requests.extend(requests)
        return [PlayedStream(self._answer(request)) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.scored.extend(requests)
        return [
            Score((self._voices[r.adapter].likes(r.completion),) * len(tokens(r.completion)))
            for r in requests
        ]

    def _answer(self, request: GenerationRequest) -> Finished:
        voice = self._voices[request.adapter]
        words = tokens(voice.answers(request.messages[-1].content))
        limit = request.sampling.max_new_tokens
        if voice.ends and len(words) < limit:
            return Finished("stop", "".join(words), 1, len(words) + 1)  # and the end token
        return Finished("length", "".join(words[:limit]), 1, limit)


class PlayedStream:
    """An answer that is there at once."""

    def __init__(self, answer: Finished) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[Finished]:
        yield self._answer

    def cancel(self) -> None:
        """There is nothing to cancel."""


@dataclass(frozen=True)
class PlayedJudge:
    """Stands for a `tuning.judge.Judge`: a rule of the two answers in the order they are shown."""

    rule: Callable[[str, str], Literal["A", "B"] | None]
    name: str = "played"

    def choose(self, prompt: Sequence[Message], a: str, b: str) -> Literal["A", "B"] | None:
        return self.rule(a, b)


class LengthScorer:
    """Stands for a reward model: the number of characters, one more for an answer that ended."""

    def score(self, prompt: Sequence[Message], answer: str, *, complete: bool = True) -> float:
        return len(answer) + complete


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def sensible(prompt: str) -> str:
    """A short answer in the prompt's language and in the form it asks for."""
    for asked, form in GOOD_FORMS.items():
        if asked in prompt:
            return form
    if re.search(r"[\u4e00-\u9fff]", prompt):
        return "这个问题很好，答案其实不难，一句话就够。"
    return "That is a fair question, and the short answer to it is this one."
