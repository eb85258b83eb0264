"""The verdicts of a canary: what each person says, in which order, and in blocks. Pure.

A verdict is the first statement of a conversation about an answer of its arm, so that all that is
said in one conversation counts once. Arms are drawn by conversation: how strict a person is weighs
in both arms alike. Of one person no more verdicts count than a share of all, where there are enough
people; the rest wait until others have said more.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from deploy.canary.betting import VerdictBlock
from deploy.canary.plan import Arm

VerdictKind = Literal["answer", "comparison"]
# In a comparison both arms answer the same question to the same person, and the answer of the
# conversation's own arm wins the more often the better it is, and the other arm's the less: the
# difference of two probabilities shows twice
KIND_WEIGHTS: dict[VerdictKind, float] = {"answer": 1.0, "comparison": 2.0}
EQUAL_PARTS = 1.5  # of a person at least, or five equally busy people would all wait for another


@dataclass(frozen=True, slots=True)
class Verdict:
    """A person's verdict in a conversation: whether an answer of its arm was good.

    Of kind "answer", it is a thumb; a correction or a regeneration without a thumb says that it was
    bad. Of kind "comparison", it says whether the arm's own answer was chosen, blind, over the
    other arm's; None is a tie, which is part of the budget and says nothing. An own answer that was
    shown first may be liked the more for it, which weighs in both arms alike.
    """

    arm: Arm
    is_good: bool | None
    user_id: str = ""
    kind: VerdictKind = "answer"


def within_shares(verdicts: Iterable[Verdict], share: float, floor: int) -> Iterator[Verdict]:
    """Yield verdicts, in the order in which they count.

    Where there are at least 1 / `share` people, a person who gave `floor` verdicts gives no more
    than that share of all, or one and a half equal parts of it; further ones count as soon as
    others have given enough. Whether a verdict counts never depends on what it says.
    """
    counted: Counter[str] = Counter()
    waiting: defaultdict[str, deque[Verdict]] = defaultdict(deque)

    def may_count(user: str) -> bool:
        people, total = len(waiting), counted.total() + 1
        most = max(share, EQUAL_PARTS / people) * total
        return people < 1 / share or counted[user] < max(floor, int(most))

    for verdict in verdicts:
        waiting[verdict.user_id].append(verdict)
        turn: str | None = verdict.user_id if may_count(verdict.user_id) else None
        while turn is not None:
            counted[turn] += 1
            yield waiting[turn].popleft()
            turn = next((user for user, left in waiting.items() if left and may_count(user)), None)


class BlockQueue:
    """Puts verdicts together into blocks of one candidate's and `others` of the live arm's.

    Answers and comparisons are kept apart: a block has verdicts of one kind, in the order in which
    they came.
    """

    def __init__(self, others: int) -> None:
        self._others = others
        self._waiting: defaultdict[tuple[VerdictKind, Arm], deque[bool]] = defaultdict(deque)

    def add(self, verdict: Verdict) -> VerdictBlock | None:
        """Add a verdict; returns the block that it completes."""
        if verdict.is_good is None:
            return None
        self._waiting[verdict.kind, verdict.arm].append(verdict.is_good)
        candidates = self._waiting[verdict.kind, "candidate"]
        lives = self._waiting[verdict.kind, "live"]
        if not candidates or len(lives) < self._others:
            return None
        won = candidates.popleft()
        good = won + sum(lives.popleft() for _ in range(self._others))
        return VerdictBlock(won, good, self._others, KIND_WEIGHTS[verdict.kind])
