"""The plan of a canary: which release, for which conversations, and when it ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from engine.errors import InvalidInput
from engine.units import DAY_SECONDS

Arm = Literal["candidate", "live"]
HASHED_BITS = 64
DEFAULT_SHARE, DEFAULT_VOTES, DEFAULT_DAYS = 0.2, 600, 14.0  # the defaults of a canary
# Together 0.05, so that without a difference a decision is wrong in at most one of 20 canaries
PROMOTE_ERROR, ROLLBACK_ERROR = 0.03, 0.02


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """A canary as it was started.

    `incumbent` is the live release that the candidate is compared with; None is the base model.
    `votes` and `days` are the budget after which it stops undecided. `promote_error` and
    `rollback_error` bound the probability of promoting a candidate that is no better, and of
    rolling back one that is no worse. Raises `InvalidInput` for values out of range.
    """

    candidate: str
    incumbent: str | None
    salt: str
    share: float = DEFAULT_SHARE
    votes: int = DEFAULT_VOTES
    days: float = DEFAULT_DAYS
    promote_error: float = PROMOTE_ERROR
    rollback_error: float = ROLLBACK_ERROR

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.share <= 0.5:
            problems.append("a canary's share is above 0 and at most 0.5")
        if self.votes < 10:
            problems.append("a canary's budget is at least 10 votes")
        if self.days <= 0:
            problems.append("a canary's budget is more than 0 days")
        if not (0 < self.promote_error <= 0.5 and 0 < self.rollback_error <= 0.5):
            problems.append("the probabilities of an error are above 0 and at most 0.5")
        if self.candidate == self.incumbent:
            problems.append("the candidate is live already")
        if problems:
            raise InvalidInput("; ".join(problems))

    @property
    def others(self) -> int:
        """Verdicts of the live arm for each one of the candidate's, as the share has them."""
        return max(1, round(1 / self.share - 1))

    def arm_of(self, conversation_id: str) -> Arm:
        """Return the arm of a conversation: always the same one in a canary, and independent of its
        arm in every other one, since each canary has its own salt."""
        hashed = sha256(f"{self.salt}\0{conversation_id}".encode()).digest()
        drawn = int.from_bytes(hashed[: HASHED_BITS // 8], "big") / 2**HASHED_BITS
        return "candidate" if drawn < self.share else "live"

    def release_of(self, arm: Arm) -> str | None:
        """Return the release that an arm is answered by."""
        return self.candidate if arm == "candidate" else self.incumbent


CanaryOutcome = Literal["promoted", "rolled back", "undecided", "stopped"]
KEPT_SECONDS = DAY_SECONDS  # after an end without a decision, for conversations that go on


@dataclass(frozen=True, slots=True)
class Canary:
    """A canary that runs or has ended; times are in seconds since 1970. `actor` started it."""

    plan: CanaryPlan
    started_at: float
    ended_at: float | None = None
    outcome: CanaryOutcome | None = None
    actor: str = ""

    @property
    def runs(self) -> bool:
        """Return whether it has not ended."""
        return self.ended_at is None

    def keeps(self, begun_at: float, release: str | None, conversation_id: str, now: float) -> bool:
        """Return whether a conversation whose first answer `release` began at `begun_at` goes
        on with the candidate.

        While the canary runs, and for a day after an end that decided nothing, it does. After a
        rollback nobody gets the candidate any more; after a promotion it is live.
        """
        if self.ended_at is not None:
            undecided = self.outcome in ("undecided", "stopped")
            if not undecided or not self.ended_at > now - KEPT_SECONDS or begun_at > self.ended_at:
                return False
        return (
            begun_at >= self.started_at
            and release == self.plan.candidate
            and self.plan.arm_of(conversation_id) == "candidate"
        )
