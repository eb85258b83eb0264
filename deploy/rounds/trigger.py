"""The loop's trigger: whether the evidence since the last training is worth a round, and why.

Evidence is counted by what it teaches, in pairs: `EVIDENCE` is the table. A round is also worth
running where the ratings of the live release fell (`deploy.rounds.change_point`). Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deploy.rounds.change_point import RatingWatch
from tuning.rows import ExampleKind

# So many pairs make a first training worth trying: of fewer, a tenth held out says nothing
FEW_PAIRS = 20
Cause = Literal["evidence", "ratings", "schedule"]
Sources = Mapping[str, int]  # the number of examples by "kind/source", as a snapshot names them


@dataclass(frozen=True, slots=True)
class EvidenceKind:
    """A kind of evidence: the examples that it gives, and what one is worth in pairs."""

    name: str
    plural: str  # in a sentence
    example_kind: ExampleKind
    sources: tuple[str, ...]
    weight: float

    def count(self, sources: Sources) -> int:
        """The number of such examples among those counted by source."""
        return sum(sources.get(f"{self.example_kind}/{source}", 0) for source in self.sources)


# The weights. A pair is the unit, which `loop_min_new_pairs` counts.
# pairs        Two answers of one prompt, one preferred: by a choice, or by opposite thumbs.
# corrections  A pair of the person's words over the model's, and a demonstration of those words; it
#              counts as the one pair that it was before other votes counted.
# thumbs       A judged answer without a counterpart. Ethayarajh et al. 2024 (sec. 4.1) split each
#              pair into two such answers and find that KTO on them equals DPO on the pairs: a half.
# liked        A thumb up is also a demonstration. It is text that the model already writes, so it
#              moves the model little: a quarter, our own choice.
EVIDENCE = (
    EvidenceKind("pairs", "compared pairs", "pairs", ("comparison", "votes"), 1.0),
    EvidenceKind("corrections", "corrections", "demonstrations", ("correction",), 1.0),
    EvidenceKind("thumbs", "lone thumbs", "unpaired", ("vote", "comparison"), 0.5),
    EvidenceKind("liked", "liked answers", "demonstrations", ("vote",), 0.25),
)
EVIDENCE_WEIGHTS: Mapping[str, float] = {kind.name: kind.weight for kind in EVIDENCE}
ALL_KINDS: frozenset[ExampleKind] = frozenset(kind.example_kind for kind in EVIDENCE)


@dataclass(frozen=True, slots=True)
class EvidenceCount:
    """The evidence of one kind: all of it, what no training has seen, and what each is worth."""

    total: int
    new: int
    weight: float


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """The loop's answer to whether it would train now, and why.

    `pairs` and `new_pairs` count every pair, those of corrections included. `untaught` are the
    kinds of evidence of which the recipe learns nothing, and which count for nothing therefore.
    """

    pairs: int
    new_pairs: int
    min_new_pairs: int
    job_running: bool
    evidence: Mapping[str, EvidenceCount] = field(default_factory=dict)
    untaught: tuple[str, ...] = ()
    ratings: RatingWatch | None = None
    overdue: bool = False  # the last round is longer ago than the operator wants

    @property
    def worth(self) -> float:
        """The worth of the new evidence, in pairs."""
        return sum(each.new * each.weight for each in self.evidence.values())

    @property
    def fell(self) -> bool:
        """Return whether the ratings of the live release fell, and something new can be learnt."""
        return self.ratings is not None and self.ratings.fell and self.worth > 0

    @property
    def would_run(self) -> bool:
        """Return whether there is enough new evidence, or reason to act, and nothing in the way."""
        return not self.job_running and self.cause is not None

    @property
    def cause(self) -> Cause | None:
        """The cause of a round: enough evidence, falling ratings or the calendar, in this order."""
        if self.worth >= self.min_new_pairs:
            return "evidence"
        if self.fell:
            return "ratings"
        return "schedule" if self.overdue and self.worth > 0 else None

    @property
    def reason(self) -> str:
        """The reason why it would run or not, in one sentence."""
        if self.job_running:
            return "a tuning job is running"
        new = {name: self.evidence[name].new if self.evidence else 0 for name in EVIDENCE_WEIGHTS}
        counted = (
            f"new since the last training: {new['pairs']} compared pairs,"
            f" {new['corrections']} corrections, {new['thumbs']} lone thumbs and {new['liked']}"
            f" liked answers, worth {self.worth:g} of the {self.min_new_pairs} pairs that start a"
            " round"
        )
        return "; ".join([counted, *self._fall(), *self._late(), *self._untaught()])

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "pairs": self.pairs,
            "new_pairs": self.new_pairs,
            "min_new_pairs": self.min_new_pairs,
            "job_running": self.job_running,
            "would_run": self.would_run,
            "reason": self.reason,
            "cause": self.cause,
            "worth": self.worth,
            "evidence": {
                name: {"total": each.total, "new": each.new, "weight": each.weight}
                for name, each in self.evidence.items()
            },
            "ratings": self.ratings.as_dict() if self.ratings else None,
        }

    def _fall(self) -> Iterable[str]:
        found = self.ratings
        if found is not None and found.fell:
            assert found.before is not None
            assert found.after is not None
            yield (
                f"thumbs up on the live release fell from {found.before:.0%} to {found.after:.0%}"
                f" in its last {found.recent} votes, which starts a round by itself"
            )

    def _late(self) -> Iterable[str]:
        if self.cause == "schedule":
            yield "the last round is so long ago that what is new starts one by itself"

    def _untaught(self) -> Iterable[str]:
        return (
            f"the recipe learns nothing from {each.plural}"
            for each in EVIDENCE
            if each.name in self.untaught
        )


def weigh_evidence(
    now: Sources,
    trained: Collection[Sources],
    *,
    min_new_pairs: int,
    job_running: bool,
    weights: Mapping[str, float] = EVIDENCE_WEIGHTS,
    taught: Collection[ExampleKind] = ALL_KINDS,
    ratings: RatingWatch | None = None,
    overdue: bool = False,
) -> LoopStatus:
    """Weigh the evidence of now against that of the snapshots trained on.

    Of each kind the snapshot that had most of it counts as known. `taught` are the kinds of
    examples that the recipe trains on.
    """

    def known(kind: EvidenceKind) -> int:
        return max(map(kind.count, trained), default=0)

    evidence = {
        kind.name: EvidenceCount(
            kind.count(now),
            max(0, kind.count(now) - known(kind)),
            weights[kind.name] if _teaches(kind, taught) else 0.0,
        )
        for kind in EVIDENCE
    }
    pairs, known_pairs = _pairs(now), max(map(_pairs, trained), default=0)
    return LoopStatus(
        pairs,
        max(0, pairs - known_pairs),
        min_new_pairs,
        job_running,
        evidence,
        tuple(k.name for k in EVIDENCE if not _teaches(k, taught) and evidence[k.name].new),
        ratings,
        overdue,
    )


def _pairs(sources: Sources) -> int:
    return sum(count for name, count in sources.items() if name.startswith("pairs/"))


def _teaches(kind: EvidenceKind, taught: Collection[ExampleKind]) -> bool:
    """Return whether a recipe learns from a kind; of a correction, its pair is enough."""
    return kind.example_kind in taught or (kind.name == "corrections" and "pairs" in taught)
