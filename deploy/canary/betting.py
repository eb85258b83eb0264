"""A test of two streams of yes and no that may be looked at after every observation. Pure.

The test is a bet (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by
betting", JRSS B 86(1)). A player starts with a capital of 1 and stakes a part of it on each
observation, at odds that are fair or worse while the hypothesis holds. The capital is then a
nonnegative supermartingale, an e-process, and by Ville's inequality (1939) it ever reaches 1 / a
with probability at most a. So the hypothesis may be rejected at any moment at which it does; how
often one looks, and why one stops, makes no difference.

The observations come in blocks of one candidate's and k of the other's, as in Turner, Ly and
Gruenwald (2024), "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping", J. Stat. Plan. Inference 230. Given that m of the k + 1 are good, and if all are good
with the same unknown probability, the candidate's is good with probability m / (k + 1) (Fisher's
exact test on one block), and with at most that if the candidate is worse. The test is therefore
exact for every such probability, and the probability may be another one in each block.

How much to stake does not matter to validity, only to power. The stake here is the one of a player
who has a deadline (Browne 1999, "Reaching goals by a deadline", Adv. Appl. Prob. 31(2)): if the
sum of the observations were a Brownian motion with variance R left until the deadline, it would
reach a boundary b above it with probability g = 2 (1 - Phi(b / sqrt(R))) (reflection principle).
A capital that is the part g of its goal is hence worth just that chance. It is invested in it by
staking, per unit of the sum, the derivative of g relative to g: 2 phi(z) / (g sqrt(R)) with
z = b / sqrt(R) = Phi^-1(1 - g / 2). The capital reaches its goal about where the boundary lies, as
in the group sequential design of O'Brien and Fleming (1979), and nearly all of the power of a test
with one look at the deadline is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

NORMAL = NormalDist()
MOST_STAKED = 0.99  # of the capital, where the observation may be lost: it never becomes 0
NOTHING = 1e-9  # a part of the goal from which nothing is won back


@dataclass(frozen=True, slots=True)
class VerdictBlock:
    """One observation of the candidate beside `others` of the other stream.

    `good` of the `others + 1` are good; `won` says whether the candidate's is. `weight` is the
    relative size of the difference that observations of this kind are expected to show.
    """

    won: bool
    good: int
    others: int = 1
    weight: float = 1.0

    @property
    def chance(self) -> float:
        """The probability of `won`, given `good`, where the streams do not differ."""
        return self.good / (self.others + 1)

    @property
    def information(self) -> float:
        """The variance of `won` under that probability, times the squared weight."""
        return self.weight**2 * self.chance * (1 - self.chance)

    def reversed(self) -> VerdictBlock:
        """The block in which good and bad have changed places."""
        return VerdictBlock(not self.won, self.others + 1 - self.good, self.others, self.weight)


def stake(progress: float, chance: float, remaining: float, weight: float = 1.0) -> float:
    """Return the stake on a block, as a multiple of the capital per unit of `won - chance`.

    `progress` is the capital as a part of its goal, in (0, 1); `remaining` is the information that
    is expected until the deadline, this block's included. Nothing is staked beyond the goal, and
    never the whole capital.
    """
    z = NORMAL.inv_cdf(1 - progress / 2)
    wanted = weight * 2 * NORMAL.pdf(z) / (progress * math.sqrt(remaining))
    to_the_goal = (1 / progress - 1) / (1 - chance)
    return min(wanted, to_the_goal, MOST_STAKED / chance)


def bet(progress: float, block: VerdictBlock, remaining: float) -> float:
    """Return the capital, as a part of its goal, after a block; its expectation is no larger than
    before, if the candidate is not better. A block of one kind alone says nothing."""
    if not NOTHING < progress < 1 or not 0 < block.good <= block.others:
        return progress
    staked = stake(progress, block.chance, remaining, block.weight)
    return progress * (1 + staked * (block.won - block.chance))
