"""Which of several examples alike are trained on. Pure.

Applies what one prompt alone cannot tell: the operator's decisions, duplicates, shares per user.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rapidfuzz.distance import Indel

from engine.errors import InvalidInput
from feedback_store.curation.decisions import Decision
from feedback_store.examples.pairing import IDENTICAL, SetAside, normal, read_the_same
from feedback_store.examples.trust import over_cap, share_cap
from feedback_store.examples.types import (
    IMPORTED,
    PERSON,
    Demonstration,
    Example,
    Pair,
    Side,
    Unpaired,
)

# Two texts are near-duplicates from this share of characters in common (2 matches / total length)
NEAR = 0.95
# An example is compared with so many earlier ones of the same question, so that one question asked
# ten thousand times does not take a hundred million comparisons
NEIGHBOURS = 50
NUMBER = re.compile(r"\d+")
KINDS = ("pairs", "unpaired", "demonstrations")
EXCLUDED = "excluded by the operator"
OVER_CAP = "user over their cap"


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


def as_decided(example: Example, decision: Decision | None) -> Example:
    """An example with the operator's words where it was edited."""
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
    alike: Iterable[Example], decisions: Mapping[str, Decision]
) -> list[str | None]:
    """Why each of some examples is set aside, or None: decisions first, then duplicates.

    They are of one kind, one topic and one label, with the operator's words, in the order in which
    people spoke: of several that say the same, or nearly the same, the first stays.
    """
    reasons: list[str | None] = []
    kept: list[Example] = []
    for example in alike:
        reason = _refused(example, decisions.get(example.id)) or _repeated(example, kept)
        if reason is None:
            kept.append(example)
        reasons.append(reason)
    return reasons


def _refused(example: Example, decision: Decision | None) -> str | None:
    if decision is not None and decision.action == "exclude":
        return EXCLUDED
    if isinstance(example, Pair) and read_the_same(example.chosen, example.rejected):
        return IDENTICAL
    return None


def _repeated(example: Example, earlier: Sequence[Example]) -> str | None:
    alike = max((_likeness(example, other) for other in earlier[-NEIGHBOURS:]), default=0)
    if alike < NEAR:
        return None
    return "duplicate" if alike == 1 else "near-duplicate"


def _reworded(side: Side, text: str | None) -> Side:
    if text is None:
        return side
    return replace(side, text=text, complete=True, base=PERSON, adapter=None)


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


def cap_of(
    total: int, counts: Mapping[str, int], *, share: float = 0.2, floor: int = 50
) -> int | None:
    """How many examples of a kind one user may have a part in; None: as many as they like.

    No user may outweigh the others, where there are enough others: not in a household of two.
    """
    if len(counts) < 1 / share:  # so few that even equal parts are larger than the share
        return None
    return share_cap(total, counts, share=share, floor=floor)


def beyond(users_of_each: Iterable[Collection[str]], cap: int | None) -> list[bool]:
    """Of examples in the order in which people spoke: which are beyond somebody's cap."""
    return [cap is not None and over for over in over_cap(users_of_each, cap or 0)]


def users_of(example: Example) -> tuple[str, ...]:
    """Whose part it is: of what came from a file the operator's, who chose it, so nobody's."""
    imported = any(side.base == IMPORTED for side in example.sides)
    return () if imported else example.origin.user_ids


def set_aside(reason: str, example: Example) -> SetAside:
    """An example that is not trained on."""
    origin = example.origin
    return SetAside(
        reason,
        origin.conversation_id,
        tuple(side.answer_id for side in example.sides),
        origin.event_ids,
        origin.user_ids,
        example.id,
    )
