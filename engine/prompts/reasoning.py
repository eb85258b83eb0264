"""Thought apart from answer. Pure text in, pure text out."""

from __future__ import annotations

import re
from dataclasses import dataclass

_THINK_BLOCK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)\s*", re.DOTALL)
_ANSWER_MARK = re.compile(
    r"(?im)^[ \t*#]*(?:final )?answer[ \t]*(?:\*\*[:：]|[:：]\*\*|[:：])[ \t]*"
)


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
