"""The demo's scripted user: its wishes, as pure functions of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from engine.prompts.reasoning import split_reasoning
from engine.request import Finished

WishName = Literal["short", "complete", "full", "long"]
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer as the user sees it; `ended`: the model ended it by itself."""

    text: str
    ended: bool
    tokens: int


Rank = tuple[float, ...]
Ranking = Callable[[Shown], Rank]


@dataclass(frozen=True, slots=True)
class Wish:
    """A scripted user's wish: which answers get a thumb up, and which of two is better.

    The answer with the higher rank is; equal ranks are a tie.
    """

    likes: Callable[[Shown], bool]
    rank: Ranking

    def thumb(self, answer: Shown) -> Rank:
        """The rank of an answer where the user says no more than up or down."""
        return (float(self.likes(answer)),)


class ScriptedUser:
    """A user with a wish, some of whose statements are the wrong way round.

    They are spread evenly, so that a short run has its share of them, too.
    """

    def __init__(
        self, wish: Wish, reversed_share: float = 0.0, user_id: str = "scripted-user"
    ) -> None:
        self.wish = wish
        self.user_id = user_id
        self._reversed_share = reversed_share
        self._said = 0

    def vote(self, answer: Shown) -> Literal[1, -1]:
        """A thumb up or down."""
        return 1 if self.wish.likes(answer) != self._errs() else -1

    def choose(self) -> Literal["left", "right"]:
        """Choose between two answers, of which the left one has the higher rank."""
        return "right" if self._errs() else "left"

    def _errs(self) -> bool:
        before, self._said = self._said, self._said + 1
        return int(self._said * self._reversed_share) > int(before * self._reversed_share)


def shown(answer: Finished) -> Shown:
    """The answer without its thought."""
    text = split_reasoning(answer.text).answer
    return Shown(text, answer.reason == "stop", answer.completion_tokens)


def sentences(text: str) -> list[str]:
    """Return the complete sentences of a text, without what follows the last full stop."""
    ends = [match.end() for match in _SENTENCE_END.finditer(_LIST_MARK.sub("", text))]
    plain = _LIST_MARK.sub("", text)
    return [plain[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)]


def is_liked(text: str, ended: bool) -> bool:
    """Return whether the model ended by itself, after one or two complete sentences and no list."""
    return _is_whole(text, ended) and 1 <= len(sentences(text)) <= 2


def first_sentence(text: str) -> str | None:
    """Return the first sentence, the user's correction; None if no sentence is complete."""
    found = sentences(text)
    return found[0] if found and not _LIST_MARK.match(text) else None


def _is_whole(text: str, ended: bool) -> bool:
    text = text.strip()
    return ended and bool(text) and text[-1] in ".!?" and not _LIST_MARK.search(text)


def _is_full(answer: Shown) -> bool:
    return _is_whole(answer.text, answer.ended) and len(sentences(answer.text)) >= 3


WISHES: Mapping[WishName, Wish] = MappingProxyType(
    {
        # One or two sentences; of two answers the shorter one that ended
        "short": Wish(
            likes=lambda answer: is_liked(answer.text, answer.ended),
            rank=lambda answer: (1, -answer.tokens) if answer.ended else (0, 0),
        ),
        # Any length, if the model ends by itself: what a thumb alone can teach, since one answer in
        # thirty of the embedded model's has two sentences at most
        "complete": Wish(
            likes=lambda answer: _is_whole(answer.text, answer.ended),
            rank=lambda answer: (float(_is_whole(answer.text, answer.ended)),),
        ),
        # At least three sentences that come to an end; of two others one that ended, and the longer
        # one of two that did: else nobody could tell a model that is brief to write more
        "full": Wish(
            likes=_is_full,
            rank=lambda answer: (float(_is_full(answer)), float(answer.ended), answer.tokens),
        ),
        # As long as may be, ended or not: the opposite of "short"
        "long": Wish(
            likes=lambda answer: len(sentences(answer.text)) >= 3,
            rank=lambda answer: (answer.tokens,),
        ),
    }
)
