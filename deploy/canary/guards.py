"""Guards of a canary, which roll a candidate back at once: errors, empty answers, slowness. Pure.

Each is a CUSUM chart (Page 1954): the likelihood ratio of "bad" against "at the limit", multiplied
up over the candidate's answers and never left below 1, signals where it reaches
`ANSWERS_BETWEEN_FALSE_SIGNALS`. While the candidate is within the limit, the mean number of answers
until a signal is at least that many (Lorden 1971, theorem 2). The chart begins anew after good
answers, so that a fault is found as soon in the thousandth answer as in the first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from deploy.canary.plan import Arm

CanaryGuard = Literal["too many errors", "too many empty answers", "too slow"]
ANSWERS_BETWEEN_FALSE_SIGNALS = 1_000
# Of failed answers, and of empty ones; three in a row signal. Our own choice
FAULT_LIMIT = 0.02
FAULT_BAD = 0.2
# An answer counts as slow beside another one that took half its time. Of two answers of equal
# releases each is as likely the slow one, however busy the machine is
SLOWER_BY = 2.0
SLOW_LIMIT = 0.5
SLOW_BAD = 0.9
STANDARD_TOKENS = 100  # the length that times are compared at


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """The end of an answer of a canary. `seconds` is what one of standard length would have taken,
    None where it is not known."""

    arm: Arm
    failed: bool = False
    empty: bool = False
    seconds: float | None = None


def standard_seconds(first_token: float, whole: float, tokens: int) -> float | None:
    """Return the seconds of an answer of `STANDARD_TOKENS`, since releases write answers of
    different lengths; None for one that is too short to tell.

    `first_token` and `whole` are the seconds until the first and the last of its tokens.
    """
    if tokens < 2 or whole < first_token:
        return None
    return first_token + STANDARD_TOKENS * (whole - first_token) / (tokens - 1)


def tripped(answers: Iterable[AnswerFacts]) -> CanaryGuard | None:
    """Return the first guard that the candidate's answers trip, in the order in which they ended.

    Errors and empty answers of which the live arm has as many are the server's and not the
    candidate's: the guard counts only while the live arm's own chart is silent.
    """
    found = list(answers)
    faults: tuple[tuple[CanaryGuard, Callable[[AnswerFacts], bool]], ...] = (
        ("too many errors", _failed),
        ("too many empty answers", _is_empty),
    )
    for guard, is_bad in faults:
        candidate, live = (
            _signals([is_bad(each) for each in found if each.arm == arm], FAULT_LIMIT, FAULT_BAD)
            for arm in ("candidate", "live")
        )
        if candidate and not live:
            return guard
    return "too slow" if _signals(_slow_ones(found), SLOW_LIMIT, SLOW_BAD) else None


def _signals(faults: Iterable[bool], limit: float, bad: float) -> bool:
    """Return whether the chart of a rate of faults signals."""
    ratio = 1.0
    for is_fault in faults:
        ratio *= bad / limit if is_fault else (1 - bad) / (1 - limit)
        ratio = max(ratio, 1.0)
        if ratio >= ANSWERS_BETWEEN_FALSE_SIGNALS * (1 - 1e-9):
            return True
    return False


def _slow_ones(answers: Iterable[AnswerFacts]) -> Iterator[bool]:
    """Pair a candidate's with a live answer, in order; True where the candidate's was the slow
    one, where one was."""
    waiting: dict[Arm, deque[float]] = {"candidate": deque(), "live": deque()}
    for answer in answers:
        if answer.seconds is None:
            continue
        waiting[answer.arm].append(answer.seconds)
        if waiting["candidate"] and waiting["live"]:
            candidate, live = waiting["candidate"].popleft(), waiting["live"].popleft()
            if max(candidate, live) >= SLOWER_BY * min(candidate, live):
                yield candidate > live


def _failed(answer: AnswerFacts) -> bool:
    return answer.failed


def _is_empty(answer: AnswerFacts) -> bool:
    return answer.empty
