"""Model solutions of GSM8K, each known right or wrong: thumbs with known truth.

`question`, and for each model an object `{"is_correct": ..., "solution": ...}` under its name
(https://github.com/openai/grade-school-math, "example_model_solutions").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from engine.errors import InvalidInput
from engine.messages import Message, clean_text
from feedback_store.formats.fields import RawRow, as_mapping, required_text, truth
from feedback_store.formats.turns import Options, answer_of
from feedback_store.records import ImportedAnswer, ImportedTurn, ImportedVote

CHECKER = "gsm8k-checker"


def is_solution(found: object) -> bool:
    """Return whether this is a model's solution with its verdict."""
    return isinstance(found, dict) and {"is_correct", "solution"} <= found.keys()


def solution_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """One turn with an answer of each model; right is a thumb up, wrong a thumb down."""
    answers = tuple(
        _answer(as_mapping(found, model), model)
        for model, found in row.items()
        if is_solution(found)
    )
    if not answers:
        raise InvalidInput("there is no solution with 'is_correct'")
    yield ImportedTurn((Message("user", required_text(row, "question")),), answers)


def _answer(found: RawRow, model: str) -> ImportedAnswer:
    vote = ImportedVote(CHECKER, 1 if truth(found, "is_correct") else -1)
    name = clean_text(model, what="model's name")
    return replace(answer_of(required_text(found, "solution")), model=name, votes=(vote,))
