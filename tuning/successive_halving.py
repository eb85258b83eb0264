"""Successive halving over learning rates (Jamieson & Talwalkar 2016, alg. 1): pure, trains nothing.

All rates train for a short while, the better half for twice as long, and so on. With a constant
learning rate a run can go on from where it was scored, so that nothing is trained twice. Every
point at which a run was scored is kept; the best one of all is chosen, also where its run went on
and got worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Point(Generic[S]):
    """A run with a learning rate, scored after some steps."""

    learning_rate: float
    steps: int
    score: S
    loss: float  # of the score; what is chosen by

    @property
    def rank(self) -> tuple[bool, float]:
        """The order of points: by loss, with those that are not a number last."""
        finite = math.isfinite(self.loss)
        return not finite, self.loss if finite else 0.0


@dataclass(frozen=True, slots=True)
class Halving(Generic[S]):
    """The outcome of a search: every point in the order of its making, and the best of them."""

    points: tuple[Point[S], ...]
    best: Point[S]


def geometric_rates(lowest: float, highest: float, count: int) -> list[float]:
    """Learning rates from the lowest to the highest, each the same multiple of the one before."""
    if count == 1:
        return [highest]
    ratio = (highest / lowest) ** (1 / (count - 1))
    return [float(f"{lowest * ratio**number:.3g}") for number in range(count)]


def rungs(count: int, most_steps: int) -> list[int]:
    """The steps at which the surviving runs are scored and the worse half of them is dropped.

    The last rung has one run left and ends at `most_steps`; each rung is half as long as the next.
    """
    halvings = max(0, math.ceil(math.log2(count)))
    steps = [max(1, round(most_steps / 2 ** (halvings - rung))) for rung in range(halvings + 1)]
    return sorted(set(steps))


def halve(
    rates: Sequence[float],
    most_steps: int,
    reach: Callable[[float, int], S],
    loss_of: Callable[[S], float],
) -> Halving[S]:
    """Search the rates; `reach` trains the run of a rate up to a number of steps and scores it.

    All runs together take at most (1 + log2(rates) / 2) times the steps of one.
    """
    alive = list(rates)
    points: list[Point[S]] = []
    for steps in rungs(len(rates), most_steps):
        scored = []
        for rate in alive:
            score = reach(rate, steps)
            scored.append(Point(rate, steps, score, loss_of(score)))
        points += scored
        alive = [each.learning_rate for each in sorted(scored, key=lambda each: each.rank)]
        alive = sorted(alive[: math.ceil(len(alive) / 2)])
    return Halving(tuple(points), min(points, key=lambda each: each.rank))
