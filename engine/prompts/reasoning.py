"""Thought apart from answer, and the answer most thoughts lead to. Pure text in, pure text out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_THINK_BLOCK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)\s*", re.DOTALL)
_ANSWER_MARK = re.compile(
    r"(?im)^[ \t*#]*(?:final )?answer[ \t]*(?:\*\*[:：]|[:：]\*\*|[:：])[ \t]*"
)
_NUMBER = re.compile(
    r"(?<![\w.])(-?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?(?!\w|[.,][0-9])"
)
_END_PUNCTUATION = ".,;:!?。，；：！？… "


@dataclass(frozen=True, slots=True)
class Reasoned:
    """An answer and the thought that led to it ("" where there is none)."""

    thought: str
    answer: str


def split_reasoning(text: str, *, finished: bool = True) -> Reasoned:
    """Split the text of a chain-of-thought answer.

    A `<think>` block or everything before a line starting with "Answer:" is the thought. While
    the text still grows and neither has been seen, all of it is thought; once finished without
    either, all of it is answer: a model that skipped the form has still answered.
    """
    block = _THINK_BLOCK.match(text)
    if block:
        return Reasoned(block[1].strip(), text[block.end() :].strip())
    mark = _ANSWER_MARK.search(text)
    if mark:
        return Reasoned(text[: mark.start()].strip(), text[mark.end() :].strip())
    return Reasoned("", text.strip()) if finished else Reasoned(text.strip(), "")


def join_reasoning(thought: str, answer: str) -> str:
    """Inverse of `split_reasoning`: the completion in the form the templates ask for."""
    return f"{thought}\nAnswer: {answer}" if thought else answer


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer that most samples agree on, as its first sample wrote it."""

    text: str
    votes: int
    total: int


def majority(answers: Sequence[str]) -> Vote:
    """The most frequent of one or more answers: self-consistency (Wang et al. 2023, 2).

    Answers agree when they differ only in case, in blanks, in punctuation at the end, or in how
    their last number is written: "It is 1,000." and "it is 1000.0" agree, "$5" and "5" do not.
    Ties go to the answer seen first. A blank answer wins only when all are blank.
    """
    if not answers:
        raise ValueError("there is no answer to vote on")
    keys = [_vote_key(answer) for answer in answers]
    counts = Counter(key for key in keys if key) or Counter(keys)
    winner, votes = counts.most_common(1)[0]  # of equals, the one counted first
    return Vote(answers[keys.index(winner)].strip(), votes, len(answers))


def _vote_key(answer: str) -> str:
    """What two answers that agree have in common."""
    text = " ".join(answer.casefold().split()).rstrip(_END_PUNCTUATION)
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return text
    last = numbers[-1]
    return text[: last.start()] + _plain_number(*last.groups(default="")) + text[last.end() :]


def _plain_number(sign: str, whole: str, fraction: str) -> str:
    """Without separators and idle zeros; exact, however many digits there are."""
    whole = whole.replace(",", "").lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number
