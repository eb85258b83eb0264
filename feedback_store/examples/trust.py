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
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

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
    shared = _shared(judgements)
    if shared.empty:
        return NO_TRUST
    model, items, users = _fit(shared)
    return Trust(_verdicts(model, items), _reliability(model, users, shared), _flip_rate(shared))


def _shared(judgements: Iterable[Judgement]) -> pd.DataFrame:
    """Columns task, worker and label (1 is up), sorted; only items judged by two or more."""
    import pandas as pd  # slow to import, and only snapshots and the console need it

    rows = sorted({(j.item, j.user, int(j.up)) for j in judgements})
    if len(rows) != len({row[:2] for row in rows}):
        raise InvalidInput("a user judges an item both up and down; only the latest counts")
    judges = Counter(item for item, _, _ in rows)
    shared = [row for row in rows if judges[row[0]] > 1]
    return pd.DataFrame(shared, columns=["task", "worker", "label"])


def _fit(shared: pd.DataFrame) -> tuple[DawidSkene, Sequence[str], Sequence[str]]:
    """The fitted model, in which items and users go by their position in the lists beside it.

    crowd-kit takes a prior at the first round only; as judgements of two items with a known
    truth, which come last, it holds in all of them. Its own stopping rule counts the share of
    good items once for each vote instead of each item, so it may stop too early: the number of
    rounds is fixed.
    """
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    tasks, items = pd.factorize(shared["task"])
    workers, users = pd.factorize(shared["worker"])
    good, bad = len(items), len(items) + 1
    known = pd.DataFrame(
        [(good, 1)] * PRIOR_RIGHT
        + [(good, 0)] * PRIOR_WRONG
        + [(bad, 0)] * PRIOR_RIGHT
        + [(bad, 1)] * PRIOR_WRONG,
        columns=["task", "label"],
    )
    prior = known.merge(pd.DataFrame({"worker": range(len(users))}), how="cross")
    model = DawidSkene(n_iter=ROUNDS, tol=-math.inf)
    model.fit(
        pd.concat([shared.assign(task=tasks, worker=workers), prior], ignore_index=True),
        true_labels=pd.Series({good: 1, bad: 0}),
    )
    return model, items.tolist(), users.tolist()


def _verdicts(model: DawidSkene, items: Sequence[str]) -> dict[str, JointVerdict]:
    """The share of good items is taken out again, so that the votes on an item decide alone.

    In a crowd that likes nine answers in ten, one vote up and one down would else be a clear up.
    """
    assert model.probas_ is not None and model.priors_ is not None
    posterior = model.probas_[1]
    base_rate = float(model.priors_[1])
    up = posterior * (1 - base_rate)
    down = (1 - posterior) * base_rate
    # Rounded, because what lies beyond depends on the order of a sum and would decide ties.
    chances = (up / (up + down)).round(9).to_dict()
    return {
        item: JointVerdict(chances[n] > 0.5, max(chances[n], 1 - chances[n]))
        for n, item in enumerate(items)
    }


def _reliability(
    model: DawidSkene, users: Sequence[str], shared: pd.DataFrame
) -> dict[str, UserReliability]:
    assert model.errors_ is not None
    errors = model.errors_  # rows (user, vote), a column for each truth
    sensitivity = errors[1].xs(1, level="label").to_dict()
    specificity = errors[0].xs(0, level="label").to_dict()
    judgements = Counter(shared["worker"])
    return {
        user: UserReliability(sensitivity[n], specificity[n], judgements[user])
        for n, user in enumerate(users)
    }


def _flip_rate(shared: pd.DataFrame) -> float | None:
    """Estimate the flip rate from disagreement alone; each vote counts once.

    Two votes that are each wrong with probability e differ with probability d = 2 e (1 - e), so
    e = (1 - sqrt(1 - 2 d)) / 2.

    The model's own posteriors would do too, but are drawn towards the prior where users judged
    little. Where good answers and bad ones are misjudged unequally often, this is somewhat low.
    """
    ups, votes = (shared.groupby("task")["label"].agg(how).to_numpy() for how in ("sum", "size"))
    if len(votes) < MIN_SHARED:
        return None
    differ = 2 * ups * (votes - ups) / (votes - 1)  # expected partners in dissent, summed
    d = float(differ.sum() / votes.sum())
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
