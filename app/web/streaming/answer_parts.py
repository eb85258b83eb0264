"""The parts of an answer as it grows: its thought, its words, and each of its calls.

Anthropic's messages and OpenAI's responses are lists of such parts, and their streams tell of each
when it begins, grows and ends. Whole documents are made of the same parts, so that a stream adds up
to its document. Knows pieces of answers; knows nothing of either format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from app.web.streaming.relay import Piece
from engine.request import TokenLogprob

PartKind = Literal["thought", "words", "call"]


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A part and its text so far; that of a call is its arguments. `call_index` counts calls."""

    index: int
    kind: PartKind
    text: str = ""
    name: str = ""
    call_index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class PartChange:
    """A change of a part, which is shown as it is afterwards; `new` is its new text.

    `ends_answer`: the answer has ended with this part.
    """

    kind: Literal["begins", "grows", "ends"]
    part: AnswerPart
    new: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    ends_answer: bool = False


class PartReader:
    """Reads the parts of one answer, one after the other, out of its pieces."""

    def __init__(self) -> None:
        self.parts: list[AnswerPart] = []  # the last one grows until it has ended
        self._is_open = False
        self._waiting: tuple[TokenLogprob, ...] = ()  # of words that have not come yet

    def read(self, piece: Piece) -> Iterator[PartChange]:
        """Yield what a piece changes."""
        self._waiting += piece.update.logprobs
        if piece.thought:
            yield from self._grow("thought", piece.thought)
        if piece.text:
            yield from self._grow("words", piece.text)
        for call in piece.calls:
            yield from self._grow("call", call.arguments, call.name, call.index)
        if piece.is_last:
            if self._waiting and self._is_open and self.parts[-1].kind == "words":
                yield from self._grow("words", "")  # tokens without text end an answer
            yield from self._end(ends_answer=True)

    def _grow(
        self, kind: PartKind, new: str, name: str = "", call_index: int = 0
    ) -> Iterator[PartChange]:
        if name or not self._is_open or self.parts[-1].kind != kind:
            yield from self._end()
            self._is_open = True
            self.parts.append(AnswerPart(len(self.parts), kind, "", name, call_index))
            yield PartChange("begins", self.parts[-1])
        logprobs = self._waiting if kind == "words" else ()
        self._waiting = ()
        part = self.parts[-1]
        self.parts[-1] = replace(part, text=part.text + new, logprobs=part.logprobs + logprobs)
        if new or logprobs:
            yield PartChange("grows", self.parts[-1], new, logprobs)

    def _end(self, *, ends_answer: bool = False) -> Iterator[PartChange]:
        if self._is_open:
            self._is_open = False
            yield PartChange("ends", self.parts[-1], ends_answer=ends_answer)


def whole_parts(pieces: Iterable[Piece]) -> list[AnswerPart]:
    """Return the parts of an answer that has ended."""
    reader = PartReader()
    for piece in pieces:
        for _ in reader.read(piece):
            pass
    return reader.parts
