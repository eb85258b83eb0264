"""Finds the passage that supports each sentence of an answer, among those it was made from.

The rule: a sentence is unsupported if less than half of its content words (bigrams in Chinese)
stand in the passages that it cites, or if it has a number that they lack. A sentence that cites
none may rest on any one of the passages, and on the headings of all. Not judged are sentences of
fewer than three content words, headings, tables and code, and sentences in another script than the
passages. `python -m benchmarks.retrieval` measures how often the rule errs. It compares words, not
meanings: what contradicts a passage in its own words passes. Knows texts; knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.prompts.terms import tokens

LEAST_SUPPORT = 0.5  # of a sentence's content words
LEAST_WORDS = 3  # of a sentence that is judged
CITATION = re.compile(r"[\[【](\d{1,2}(?:\s*[,，、]\s*\d{1,2})*)[\]】]")
# An end, with the citations and closing marks that belong to it; not "3.5", "e.g." or "1."
SENTENCE = re.compile(
    r".+?(?:[。！？]+|(?<![\s\d.]\w)(?<!\b\d)[.!?]+(?=[\s*_\"”)\]【\[]|$)|$)"
    r"(?:[\"”’)*_]|\s*[\[【][\d,，、\s]+[\]】][.。]?)*"
)
LIST_MARK = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)、])\s+")
NOT_PROSE = re.compile(r"\s*(?:#|\||>|```|~~~|\$\$)")
FENCE = re.compile(r"\s*(?:```|~~~)")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class JudgedSentence:
    """The end of a sentence in its answer, and the number of the passage that supports it.

    The number counts from 1, and is None where no passage supports the sentence. `cites`: it names
    its passages itself.
    """

    end: int
    passage: int | None
    cites: bool


def judged_sentences(
    answer: str, passages: Sequence[Mapping[str, Any]]
) -> Iterator[JudgedSentence]:
    """Yield the sentences of an answer that are judged, in order.

    A passage has its "text", and "heading" and "source" where it has them.
    """
    known = [_Passage(number, passage) for number, passage in enumerate(passages, start=1)]
    for sentence, end in prose_sentences(answer) if known else ():
        if (judged := _judge(sentence, end, known)) is not None:
            yield judged


def unsupported_ends(answer: str, passages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return where the sentences of an answer end that no passage supports, in ascending order."""
    judged = judged_sentences(answer, passages)
    return [sentence.end for sentence in judged if sentence.passage is None]


def prose_sentences(answer: str) -> Iterator[tuple[str, int]]:
    """Yield the sentences of an answer in Markdown, each with its end: those of prose alone."""
    at, is_code = 0, False
    for line in answer.splitlines(keepends=True):
        if FENCE.match(line):
            is_code = not is_code
        elif not is_code and not NOT_PROSE.match(line):
            text = line.rstrip()
            mark = LIST_MARK.match(text)
            for found in SENTENCE.finditer(text, mark.end() if mark else 0):
                if found[0].strip():
                    yield found[0], at + found.end()
        at += len(line)


class _Passage:
    """A passage, prepared for the comparison with sentences."""

    def __init__(self, number: int, passage: Mapping[str, Any]) -> None:
        self.number = number
        places = " ".join(str(passage.get(name, "")) for name in ("heading", "source"))
        self.words = set(tokens(f"{passage['text']} {places}"))
        self.numbers = set(NUMBER.findall(f"{passage['text']} {places}"))
        self.is_cjk = IDEOGRAPH.search(passage["text"]) is not None


def _judge(sentence: str, end: int, passages: Sequence[_Passage]) -> JudgedSentence | None:
    """Judge one sentence; returns None if it is none of those that are judged."""
    said = CITATION.sub(" ", sentence)
    words, numbers = set(tokens(said)), set(NUMBER.findall(said))
    cited = [n for found in CITATION.findall(sentence) for n in map(int, re.findall(r"\d+", found))]
    chosen = [passages[n - 1] for n in cited if 0 < n <= len(passages)]
    if cited and not chosen:
        return JudgedSentence(end, None, cites=True)  # it cites what does not exist
    is_cjk = IDEOGRAPH.search(said) is not None
    if len(words) < LEAST_WORDS or is_cjk not in {each.is_cjk for each in chosen or passages}:
        return None
    if chosen:  # together, since a sentence may join two passages
        together = set().union(*(each.words for each in chosen))
        known = set().union(*(each.numbers for each in chosen))
        is_supported = _covers(words, together) and numbers <= known
        return JudgedSentence(end, chosen[0].number if is_supported else None, cites=True)
    fitting = [p for p in passages if _covers(words, p.words) and numbers <= p.numbers]
    best = max(fitting, key=lambda passage: len(words & passage.words), default=None)
    return JudgedSentence(end, best.number if best else None, cites=False)


def _covers(words: set[str], known: set[str]) -> bool:
    return len(words & known) >= LEAST_SUPPORT * len(words)
