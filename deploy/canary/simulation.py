"""Canaries played by a random generator: how often they decide, how soon, and how often wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploy.canary.decision import CanaryTest
from deploy.canary.plan import Arm, CanaryPlan
from deploy.canary.verdicts import Verdict

RUNS = 2_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """Facts about the releases, in the words of a person.

    `candidate` and `live` are the probabilities that an answer is found good. Of all verdicts,
    `comparisons` is the share that compares an answer of each: one that is good beats one that is
    not, and two alike are a tie.
    """

    candidate: float
    live: float
    comparisons: float = 0.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """The shares of runs by decision, and the median number of votes until the end of a run."""

    promoted: float
    rolled_back: float
    undecided: float
    median_votes: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def simulate(plan: CanaryPlan, scenario: Scenario, *, runs: int = RUNS, seed: int = 0) -> Simulated:
    """Play a canary many times."""
    generator = np.random.default_rng(seed)
    ended = [_play(plan, _votes(plan, scenario, generator)) for _ in range(runs)]
    decisions = [test.decision for test in ended]
    return Simulated(
        decisions.count("promote") / runs,
        decisions.count("roll back") / runs,
        decisions.count("undecided") / runs,
        float(np.median([test.votes for test in ended])),
    )


def _play(plan: CanaryPlan, votes: Iterable[Verdict]) -> CanaryTest:
    """Return the test at its decision."""
    test = CanaryTest(plan)
    for verdict in votes:
        if test.add(verdict) != "running":
            break
    return test


def _votes(
    plan: CanaryPlan, scenario: Scenario, generator: np.random.Generator
) -> Iterator[Verdict]:
    """Draw as many verdicts as the budget has."""
    draws = zip(
        (generator.random(plan.votes) < plan.share).tolist(),
        (generator.random(plan.votes) < scenario.comparisons).tolist(),
        (generator.random(plan.votes) < scenario.candidate).tolist(),
        (generator.random(plan.votes) < scenario.live).tolist(),
        strict=True,
    )
    for is_candidate, compares, candidate, live in draws:
        arm: Arm = "candidate" if is_candidate else "live"
        own, other = (candidate, live) if is_candidate else (live, candidate)
        if compares:
            yield Verdict(arm, None if own == other else own, kind="comparison")
        else:
            yield Verdict(arm, own)


def power_bound(
    candidate: float, live: float, *, votes: int, error: float, share: float = 0.5
) -> float:
    """Return a bound on the power of every test of two independent streams of thumbs.

    No test, whether it looks once or after each vote, that claims "the candidate is better" (or
    worse) with probability at most `error` where both probabilities are equal claims it more often
    at `candidate` and `live` within so many votes. It is the power of the likelihood ratio test
    against the equal probability between the two (Neyman and Pearson 1933), which is simpler to
    tell from the truth than all equal ones together; the arms have the given share of the votes.
    """
    from scipy import stats  # slow to import, and nothing else here needs it

    n = round(share * votes)
    sizes, truths = (n, votes - n), (candidate, live)
    equal = share * candidate + (1 - share) * live
    counts = [np.arange(size + 1) for size in sizes]
    under_truth = map(stats.binom.pmf, counts, sizes, truths)
    under_null = map(stats.binom.pmf, counts, sizes, (equal, equal))
    joint, null = np.outer(*under_truth).ravel(), np.outer(*under_null).ravel()
    order = np.argsort(null / np.maximum(joint, 1e-300))
    size, power = np.cumsum(null[order]), np.cumsum(joint[order])
    # The randomized test takes the last cell in part: linear between two cells
    return float(np.interp(error, size, power))
