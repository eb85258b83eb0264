"""From all prompts' examples to those that are trained on. Pure.

Applies what one prompt alone cannot tell: the operator's decisions, duplicates, shares per user.
The same input gives the same result, in whatever pieces it was gathered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from rapidfuzz.distance import Indel

from engine.errors import InvalidInput
from feedback_store.curation import Decision
from feedback_store.examples import IMPORTED, PERSON, Demonstration, Example, Pair, Side, Unpaired
from feedback_store.pairing import (
    IDENTICAL,
    PromptExamples,
    SetAside,
    normal,
    read_the_same,
)
from feedback_store.trust import cap_per_user

# Two texts are near-duplicates from this share of characters in common (2 matches / total length)
NEAR = 0.95
# An example is compared with so many earlier ones of the same question, so that one question asked
# ten thousand times does not take a hundred million comparisons
NEIGHBOURS = 50
NUMBER = re.compile(r"\d+")
KINDS = ("pairs", "unpaired", "demonstrations")


@dataclass
class Examples:
    """All examples that may be trained on, and all evidence that is set aside."""

    pairs: list[Pair] = field(default_factory=list)
    unpaired: list[Unpaired] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)

    @property
    def set_aside_counts(self) -> dict[str, int]:
        """How much was set aside for each reason."""
        return dict(sorted(Counter(item.reason for item in self.set_aside).items()))

    @property
    def every(self) -> list[Example]:
        """Examples of all kinds."""
        return [*self.pairs, *self.unpaired, *self.demonstrations]

    def of_kind(self, kind: str) -> Sequence[Example]:
        """Examples of one kind; raises `InvalidInput` naming the kinds."""
        if kind not in KINDS:
            raise InvalidInput(f"unknown kind {kind[:40]!r}; known: {', '.join(KINDS)}")
        examples: Sequence[Example] = getattr(self, kind)
        return examples

    def find(self, beginning: str) -> Example | None:
        """The one example whose id begins like this; None where none does, or several do."""
        found = [example for example in self.every if example.id.startswith(beginning)]
        return found[0] if len(found) == 1 else None


def select(
    prompts: Iterable[PromptExamples],
    decisions: Mapping[str, Decision] | None = None,
    *,
    user_share: float = 0.2,
    user_floor: int = 50,
) -> Examples:
    """Decisions, then duplicates, then shares per user, for each kind of example.

    In the order in which people spoke, so that the first of several alike stays.
    """
    found = list(prompts)
    result = Examples(set_aside=[item for prompt in found for item in prompt.set_aside])
    for kind in KINDS:
        placed: list[_Placed] = [
            (example.origin.event_ids[0], prompt.topic, example)
            for prompt in found
            for example in getattr(prompt, kind)
        ]
        placed.sort(key=itemgetter(0))
        placed = _decide(placed, decisions or {}, result.set_aside)
        kept = _drop_duplicates(placed, result.set_aside)
        getattr(result, kind).extend(_cap(kept, user_share, user_floor, result.set_aside))
    return result


_Placed = tuple[int, bytes, Example]  # the first event it rests on, what it is about


def _decide(
    placed: list[_Placed], decisions: Mapping[str, Decision], aside: list[SetAside]
) -> list[_Placed]:
    """The operator's exclusions and edits."""
    if not decisions:
        return placed
    kept: list[_Placed] = []
    for event_id, topic, example in placed:
        decision = decisions.get(example.id)
        if decision is None or decision.action == "include":
            kept.append((event_id, topic, example))
        elif decision.action == "exclude":
            aside.append(_aside("excluded by the operator", example))
        else:
            edited = _edited(example, decision)
            if isinstance(edited, Pair) and read_the_same(edited.chosen, edited.rejected):
                aside.append(_aside(IDENTICAL, edited))
            else:
                kept.append((event_id, topic, edited))
    return kept


def _edited(example: Example, decision: Decision) -> Example:
    if isinstance(example, Pair):
        return replace(
            example,
            chosen=_reworded(example.chosen, decision.chosen),
            rejected=_reworded(example.rejected, decision.rejected),
        )
    return replace(example, completion=_reworded(example.completion, decision.chosen))


def _reworded(side: Side, text: str | None) -> Side:
    if text is None:
        return side
    return replace(side, text=text, complete=True, base=PERSON, adapter=None)


def _drop_duplicates(placed: Sequence[_Placed], aside: list[SetAside]) -> list[Example]:
    """Keep the first of those that say the same, or nearly the same, about the same question.

    A good and a bad answer to it are no duplicates.
    """
    kept: list[Example] = []
    earlier: dict[tuple[bytes, bool], list[Example]] = {}
    for _, topic, example in placed:
        label = isinstance(example, Unpaired) and example.label
        neighbours = earlier.setdefault((topic, label), [])
        alike = max((_likeness(example, other) for other in neighbours[-NEIGHBOURS:]), default=0)
        if alike < NEAR:
            neighbours.append(example)
            kept.append(example)
        else:
            aside.append(_aside("duplicate" if alike == 1 else "near-duplicate", example))
    return kept


def _likeness(example: Example, other: Example) -> float:
    """Share of characters in common, of the side that differs most; 1 is the same.

    Texts with other numbers in them are not alike: they are other answers.
    """
    sides = [
        (normal(one.full_text), normal(two.full_text))
        for one, two in zip(example.sides, other.sides, strict=True)
    ]
    if any(NUMBER.findall(one) != NUMBER.findall(two) for one, two in sides):
        return 0.0
    return min(Indel.normalized_similarity(one, two) for one, two in sides)


def _cap(examples: list[Example], share: float, floor: int, aside: list[SetAside]) -> list[Example]:
    """No user may outweigh the others, where there are enough others: not in a household of two."""
    users = {user for example in examples for user in _users_of(example)}
    if len(users) < 1 / share:  # so few that even equal parts are larger than the share
        return examples
    over = cap_per_user(examples, _users_of, share=share, floor=floor)
    if not over:
        return examples
    aside += [_aside("user over their cap", examples[place]) for place in sorted(over)]
    return [example for place, example in enumerate(examples) if place not in over]


def _users_of(example: Example) -> tuple[str, ...]:
    """Whose part it is: of what came from a file the operator's, who chose it, so nobody's."""
    imported = any(side.base == IMPORTED for side in example.sides)
    return () if imported else example.origin.user_ids


def _aside(reason: str, example: Example) -> SetAside:
    origin = example.origin
    return SetAside(
        reason, origin.conversation_id, tuple(side.answer_id for side in example.sides),
        origin.event_ids, origin.user_ids, example.id,
    )  # fmt: skip
