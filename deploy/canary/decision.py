"""The decision about a canary by its verdicts: promote, roll back, or neither (yet). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from deploy.canary.betting import VerdictBlock, bet
from deploy.canary.plan import Arm, CanaryPlan
from deploy.canary.verdicts import BlockQueue, Verdict

Decision = Literal["promote", "roll back", "undecided", "running"]
# A bad candidate is to go soon, a slightly worse one within the budget: most of the capital has an
# earlier deadline. Both numbers are our own choice, by simulation
EARLY_PART = 0.8
EARLY_DEADLINE = 0.25  # of the budget of votes
ASSUMED_VOTES = 8  # the weight of the information a vote is assumed to have, beside what is seen


@dataclass(slots=True)
class ArmCounts:
    """The verdicts of one arm that counted."""

    good: int = 0
    bad: int = 0
    ties: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.good + self.bad + self.ties

    def add(self, is_good: bool | None) -> None:
        """Count one more."""
        self.good += is_good is True
        self.bad += is_good is False
        self.ties += is_good is None


@dataclass(frozen=True, slots=True)
class Standing:
    """The standing of a canary after some verdicts.

    `better` and `worse` are the e-values against "the candidate is no better" and "is no worse":
    the capital of a player who began with 1 and bets on the opposite. `better_needed` and
    `worse_needed` are where the canary promotes or rolls back.
    """

    decision: Decision
    arms: dict[Arm, ArmCounts]
    comparisons: int
    better: float
    better_needed: float
    worse: float
    worse_needed: float

    @property
    def votes(self) -> int:
        """The verdicts that counted."""
        return sum(arm.total for arm in self.arms.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "votes": self.votes}


@dataclass(slots=True)
class CanaryTest:
    """Takes verdicts one by one, and knows after each how the canary stands."""

    plan: CanaryPlan
    votes: int = 0
    decision: Decision = "running"
    _better: float = field(init=False)
    _worse: list[float] = field(init=False)  # with the early deadline, and with the budget's end
    _blocks: BlockQueue = field(init=False)
    _information: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._better = self.plan.promote_error
        error = self.plan.rollback_error
        self._worse = [EARLY_PART * error, (1 - EARLY_PART) * error]
        self._blocks = BlockQueue(self.plan.others)

    @property
    def better(self) -> float:
        """The capital of the bet that the candidate is better, as a part of its goal."""
        return self._better

    @property
    def worse(self) -> float:
        """The capital of the bets that it is worse, as a part of their goal; the mean of two
        e-processes is one."""
        return sum(self._worse)

    def add(self, verdict: Verdict) -> Decision:
        """Take a verdict into account and return the decision."""
        if self.decision != "running":
            return self.decision
        self.votes += 1
        block = self._blocks.add(verdict)
        if block is not None and 0 < block.good <= block.others:
            self._bet(block)
        if self.better >= 1 - 1e-9:
            self.decision = "promote"
        elif self.worse >= 1 - 1e-9:
            self.decision = "roll back"
        elif self.votes >= self.plan.votes:
            self.decision = "undecided"
        return self.decision

    def _bet(self, block: VerdictBlock) -> None:
        self._information += block.information
        budget = self.plan.votes
        early = EARLY_DEADLINE * budget
        ends = (early if self.votes < early else budget, budget)
        self._better = bet(self._better, block, self._remaining(block, budget))
        against, before = block.reversed(), tuple(self._worse)
        for index, end in enumerate(ends):
            # Both bets have one goal, and each aims at what the other one leaves of it: what it had
            # before the block, since a stake may not depend on what it is staked on
            goal = 1 - before[1 - index]
            part = bet(before[index] / goal, against, self._remaining(block, end))
            self._worse[index] = part * goal

    def _remaining(self, block: VerdictBlock, end: float) -> float:
        """The information expected until the verdict number `end`, as it came so far."""
        others = self.plan.others
        # Of one vote, where half of all verdicts are good: E[m (k + 1 - m)] / (k + 1)^3
        assumed = others / (4 * (others + 1) ** 2)
        known = self._information + ASSUMED_VOTES * assumed
        a_vote = known / (self.votes + ASSUMED_VOTES)
        return block.information + max(0.0, end - self.votes) * a_vote


def stand(plan: CanaryPlan, verdicts: Iterable[Verdict], *, is_over: bool = False) -> Standing:
    """Return how a canary stands after verdicts, in the order in which they count.

    What came after the verdict that decided is left out, so that the decision is the same however
    seldom anybody looks. `is_over`: its days are over.
    """
    test = CanaryTest(plan)
    arms: dict[Arm, ArmCounts] = {"candidate": ArmCounts(), "live": ArmCounts()}
    comparisons = 0
    for verdict in verdicts:
        arms[verdict.arm].add(verdict.is_good)
        comparisons += verdict.kind == "comparison"
        if test.add(verdict) != "running":
            break
    decision: Decision = "undecided" if is_over and test.decision == "running" else test.decision
    return Standing(
        decision,
        arms,
        comparisons,
        test.better / plan.promote_error,
        1 / plan.promote_error,
        test.worse / plan.rollback_error,
        1 / plan.rollback_error,
    )
