"""The choice of answers to ask people about: where the policy is least sure. Pure.

A policy that was trained by DPO is a reward model of its own: its implicit reward of an answer is
beta (log pi(y|x) - log pi_ref(y|x)) (Rafailov et al. 2023, sec. 4), and by Bradley and Terry (1952)
it predicts that the first of two is preferred with probability sigmoid(r1 - r2). Asking where that
is closest to 1/2 is uncertainty sampling (Lewis and Gale 1994); Ji et al. 2024, *Reinforcement
Learning from Human Feedback with Active Queries* (arXiv 2402.09401), do so for preferences and ask
for less than half of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

BETA = 0.1  # the default recipe's


def implicit_reward(policy: float, reference: float, beta: float = BETA) -> float:
    """The implicit reward of an answer, from its summed log-probabilities in nats."""
    return beta * (policy - reference)


def preference(first: float, second: float) -> float:
    """The predicted probability that the answer with the first reward is preferred."""
    return 0.5 * (1 + math.tanh((first - second) / 2))  # the sigmoid, without overflow


def least_sure(
    rewards: Sequence[float], texts: Sequence[str], difference: Callable[[str, str], float]
) -> tuple[int, int, float] | None:
    """The two answers to ask about, by their indices, and the predicted preference of the first.

    It is the couple whose preference is closest to 1/2 and, of equals, as where nothing has been
    learnt yet, the one whose texts differ most. `difference` returns 0 for texts that read the
    same; these are never asked about. None where all read the same.
    """
    couples = [
        (abs(preference(rewards[i], rewards[j]) - 0.5), -difference(texts[i], texts[j]), i, j)
        for i, j in combinations(range(len(texts)), 2)
    ]
    told_apart = [couple for couple in couples if couple[1] < 0]
    if not told_apart:
        return None
    *_, first, second = min(told_apart)
    return first, second, preference(rewards[first], rewards[second])
