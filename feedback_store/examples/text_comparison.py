"""The likeness of two texts, and of two examples. Pure."""

from __future__ import annotations

import re
import unicodedata

from rapidfuzz.distance import Indel

from feedback_store.examples.types import Side, TrainingExample

_NUMBER = re.compile(r"\d+")


def normalized(text: str) -> str:
    """Remove the differences that no reader would call a preference."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_the_same(one: Side, other: Side) -> bool:
    """Return whether no reader would tell two sides apart."""
    return normalized(one.full_text) == normalized(other.full_text)


def likeness(example: TrainingExample, other: TrainingExample) -> float:
    """The share of characters in common, of the side that differs most; 1 is the same.

    Twice the common characters over both lengths. Texts with different numbers in them have
    likeness 0: they are different answers.
    """
    sides = [
        (normalized(one.full_text), normalized(two.full_text))
        for one, two in zip(example.sides, other.sides, strict=True)
    ]
    if any(_NUMBER.findall(one) != _NUMBER.findall(two) for one, two in sides):
        return 0.0
    return min(Indel.normalized_similarity(one, two) for one, two in sides)
