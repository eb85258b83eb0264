"""The reliability of annotators, estimated from their agreement, and the verdicts of several. Pure.

Knows votes as values. Drops nothing: the caller and the operator decide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import InvalidInput
from feedback_store.records import CurrentVote

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Positions = npt.NDArray[np.int64]

# What is believed of each user beforehand, as if they had judged five known good and five known
# bad answers and been right on four of each. This is the beta prior on both coins of Raykar et
# al. (2010), without which a user with one judgement is taken for infallible. With the same
# prior for all, users who judged little are weighted alike: their verdicts are the majority's.
PRIOR_RIGHT, PRIOR_WRONG = 4, 1
# Rounds of EM. In 14 kinds of simulated crowds (20 to 4,000 users, 2 to 5 votes an answer) 80 more
# moved no posterior by over 0.02, but where 20 users were wrong 3 times in 10: by 0.04 on average.
ROUNDS = 20
# With this many answers that two users judged, the standard error of a flip rate of 0.1 is 0.034:
# sqrt(0.18 * 0.82 / 50) / (2 * sqrt(1 - 2 * 0.18)). With fewer it would be little but noise.
MIN_SHARED = 50
# Where users disagree: at most one verdict in ten may be wrong. Of users of whom little is known
# two against one are not enough (4 to 1, so 0.8), three against one are (16 to 1, so 0.94).
SURE = 0.9


@dataclass(frozen=True, slots=True)
class Judgement:
    """A user's opinion of an item: an answer's id."""

    item: str
    user: str
    up: bool


@dataclass(frozen=True, slots=True)
class JointVerdict:
    """The verdict of several users on an item, and the probability (0.5 to 1) that it is right."""

    up: bool
    confidence: float


@dataclass(frozen=True, slots=True)
class UserReliability:
    """The rate of good answers that a user votes up, and of bad ones voted down (specificity).

    `judgements` counts those on items that others judged too: what the estimate rests on.
    """

    sensitivity: float
    specificity: float
    judgements: int


@dataclass(frozen=True, slots=True)
class Trust:
    """The verdict on each item and the reliability of each user, estimated from agreement.

    `flip_rate` is the probability that a single vote points the wrong way: epsilon of robust DPO
    (Chowdhury et al. 2024), which needs it below 0.5. None where too few items are shared to
    tell; 0.5 where users agree no more than coins do.
    """

    verdicts: Mapping[str, JointVerdict]
    reliability: Mapping[str, UserReliability]
    flip_rate: float | None

    def verdict(self, item: str) -> JointVerdict | None:
        """The verdict on an item; None where fewer than two users judged it."""
        return self.verdicts.get(item)


NO_TRUST = Trust({}, {}, None)  # what is known of users before any estimate


def estimate_trust(judgements: Iterable[Judgement]) -> Trust:
    """The two-coin worker model (Dawid & Skene 1979; Raykar et al. 2010), as a MAP estimate.

    Rests on items judged by two users or more. The order of the judgements does not matter, and
    the same judgement twice counts once. Raises InvalidInput where a user says both up and down.
    """
    votes = _shared(judgements)
    if votes is None:
        return NO_TRUST
    good, model = _fit(votes)
    return Trust(
        _verdicts(votes, good, model.base_rate), _reliability(votes, model), _flip_rate(votes)
    )


@dataclass(frozen=True, slots=True)
class _Votes:
    """Votes on items that several users judged; items and users go by their positions."""

    items: Sequence[str]
    users: Sequence[str]
    item: Positions
    user: Positions
    up: Floats  # 1 is up, 0 is down


@dataclass(frozen=True, slots=True)
class _TwoCoins:
    """The share of good items, and each user's rates of right votes on good and on bad ones."""

    base_rate: float
    sensitivity: Floats
    specificity: Floats


def _shared(judgements: Iterable[Judgement]) -> _Votes | None:
    """The judgements, sorted, of items that two users or more judged; None without any."""
    import numpy as np  # takes as long to import as a home without feedback to be read

    rows = sorted({(j.item, j.user, float(j.up)) for j in judgements})
    if len(rows) != len({row[:2] for row in rows}):
        raise InvalidInput("a user judges an item both up and down; only the latest counts")
    judges = Counter(item for item, _, _ in rows)
    shared = [row for row in rows if judges[row[0]] > 1]
    if not shared:
        return None
    of_items, of_users, ups = zip(*shared, strict=True)
    items, item = np.unique(of_items, return_inverse=True)
    users, user = np.unique(of_users, return_inverse=True)
    return _Votes(items.tolist(), users.tolist(), item, user, np.array(ups))


def _fit(votes: _Votes) -> tuple[Floats, _TwoCoins]:
    """The probability that each item is good, and the model, by EM from the majorities."""
    import numpy as np

    good = np.bincount(votes.item, votes.up) / np.bincount(votes.item)
    model = _maximized(votes, good)
    for _ in range(ROUNDS):
        good = _expected(votes, model)
        model = _maximized(votes, good)
    return good, model


def _maximized(votes: _Votes, good: Floats) -> _TwoCoins:
    """M-step: the model that is most likely where items are good with these probabilities.

    The known good and the known bad item of the prior count in the share of good items too.
    """
    import numpy as np

    good_of_vote = good[votes.item]
    right_up = np.bincount(votes.user, good_of_vote * votes.up)
    right_down = np.bincount(votes.user, (1 - good_of_vote) * (1 - votes.up))
    of_good = np.bincount(votes.user, good_of_vote)
    of_bad = np.bincount(votes.user, 1 - good_of_vote)
    prior = PRIOR_RIGHT + PRIOR_WRONG
    return _TwoCoins(
        base_rate=float((good.sum() + 1) / (len(good) + 2)),
        sensitivity=(right_up + PRIOR_RIGHT) / (of_good + prior),
        specificity=(right_down + PRIOR_RIGHT) / (of_bad + prior),
    )


def _expected(votes: _Votes, model: _TwoCoins) -> Floats:
    """E-step: the probability that each item is good, in the model."""
    import numpy as np

    up = np.log(model.sensitivity / (1 - model.specificity))
    down = np.log((1 - model.sensitivity) / model.specificity)
    evidence = np.where(votes.up == 1, up[votes.user], down[votes.user])
    log_odds = np.bincount(votes.item, evidence) + math.log(model.base_rate / (1 - model.base_rate))
    result: Floats = (1 + np.tanh(log_odds / 2)) / 2  # the logistic function, without overflow
    return result


def _verdicts(votes: _Votes, good: Floats, base_rate: float) -> dict[str, JointVerdict]:
    """The share of good items is taken out again, so that the votes on an item decide alone.

    In a crowd that likes nine answers in ten, one vote up and one down would else be a clear up.
    """
    up = good * (1 - base_rate)
    down = (1 - good) * base_rate
    # Rounded, because what lies beyond depends on the order of a sum and would decide ties.
    chances = (up / (up + down)).round(9).tolist()
    return {
        item: JointVerdict(chance > 0.5, max(chance, 1 - chance))
        for item, chance in zip(votes.items, chances, strict=True)
    }


def _reliability(votes: _Votes, model: _TwoCoins) -> dict[str, UserReliability]:
    import numpy as np

    rates = zip(
        model.sensitivity.tolist(),
        model.specificity.tolist(),
        np.bincount(votes.user).tolist(),
        strict=True,
    )
    return {
        user: UserReliability(*of_user) for user, of_user in zip(votes.users, rates, strict=True)
    }


def _flip_rate(votes: _Votes) -> float | None:
    """Estimate the flip rate from disagreement alone; each vote counts once.

    Two votes that are each wrong with probability e differ with probability d = 2 e (1 - e), so
    e = (1 - sqrt(1 - 2 d)) / 2.

    The model's own posteriors would do too, but are drawn towards the prior where users judged
    little. Where good answers and bad ones are misjudged unequally often, this is somewhat low.
    """
    import numpy as np

    if len(votes.items) < MIN_SHARED:
        return None
    ups, counts = np.bincount(votes.item, votes.up), np.bincount(votes.item)
    differ = 2 * ups * (counts - ups) / (counts - 1)  # expected partners in dissent, summed
    d = float(differ.sum() / counts.sum())
    return (1 - math.sqrt(max(0.0, 1 - 2 * d))) / 2


def joint_verdict(votes: Sequence[CurrentVote], trust: Trust) -> int | None:
    """The vote (+1 or -1) that the voters on one answer cast together; None: it is contested.

    Where they disagree, their votes count by the trust in them, and the verdict must be sure.
    """
    values = {vote.vote for vote in votes}
    if len(values) == 1:
        return values.pop()
    verdict = trust.verdict(votes[0].answer_id)
    if verdict is None or verdict.confidence < SURE:
        return None
    return 1 if verdict.up else -1
