"""The choice among examples that are alike. Pure.

Applies what one prompt alone cannot tell: the operator's decisions, and duplicates elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from feedback_store.examples.rules import DUPLICATE, EXCLUDED, IDENTICAL, NEAR_DUPLICATE
from feedback_store.examples.text_comparison import likeness, read_the_same
from feedback_store.examples.types import PERSON, Pair, Side, TrainingExample
from feedback_store.records import ExampleDecision

NEAR = 0.95  # the likeness from which two examples are near-duplicates
# The number of earlier examples of the same question that an example is compared with, so that one
# question asked ten thousand times does not take a hundred million comparisons
NEIGHBOURS = 50


def as_decided(example: TrainingExample, decision: ExampleDecision | None) -> TrainingExample:
    """Put the operator's words into an example that was edited."""
    if decision is None or decision.action != "edit":
        return example
    if isinstance(example, Pair):
        return replace(
            example,
            chosen=_reworded(example.chosen, decision.chosen),
            rejected=_reworded(example.rejected, decision.rejected),
        )
    return replace(example, completion=_reworded(example.completion, decision.chosen))


def reasons_against(
    alike: Iterable[TrainingExample], decisions: Mapping[str, ExampleDecision]
) -> list[str | None]:
    """The reason why each example is set aside, or None: decisions first, then duplicates.

    The examples have one kind, one topic and one label, the operator's words, and the order in
    which people spoke: of several that say the same, or nearly the same, the first stays.
    """
    reasons: list[str | None] = []
    kept: list[TrainingExample] = []
    for example in alike:
        decision = decisions.get(example.id)
        reason = _reason_alone(example, decision) or _reason_beside(example, kept[-NEIGHBOURS:])
        if reason is None:
            kept.append(example)
        reasons.append(reason)
    return reasons


def _reason_alone(example: TrainingExample, decision: ExampleDecision | None) -> str | None:
    if decision is not None and decision.action == "exclude":
        return EXCLUDED
    if isinstance(example, Pair) and read_the_same(example.chosen, example.rejected):
        return IDENTICAL
    return None


def _reason_beside(example: TrainingExample, earlier: Sequence[TrainingExample]) -> str | None:
    highest = max((likeness(example, other) for other in earlier), default=0)
    if highest < NEAR:
        return None
    return DUPLICATE if highest == 1 else NEAR_DUPLICATE


def _reworded(side: Side, text: str | None) -> Side:
    if text is None:
        return side
    return replace(side, text=text, complete=True, base=PERSON, adapter=None)
