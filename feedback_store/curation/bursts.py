"""Detection of votes that are too fast or too much alike to be honest. Pure.

Knows votes, users and times as values; the caller says which answers read the same. Drops nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from feedback_store.records import CurrentVote

AlertKind = Literal["pace", "brigade", "opposed"]

# Most adults silently read at most 300 words a minute (Brysbaert 2019), so answers of 15 words at
# 20 a minute. Answers are longer than that: whoever votes faster does not read them.
PACE_VOTES, PACE_SECONDS = 20, 60.0
# A crowd that acts by appointment acts within minutes. Fewer people are enough where most of them
# are new: accounts made for the purpose.
BRIGADE_SECONDS = 600.0
BRIGADE_USERS, BRIGADE_USERS_IF_NEW = 5, 3
# The chance that a store in which nobody colludes raises even one alert (Bonferroni over votes).
FALSE_ALERT = 0.01


@dataclass(frozen=True, slots=True)
class Alert:
    """Statements an operator should look at. Times are seconds, as in the votes.

    `pace`: one user voted faster than a person reads. `brigade`: several users voted the same
    way on the same text within minutes. `opposed`: some users want longer answers, others shorter
    ones (`opposition`). `vote` is None where both directions occur.
    """

    kind: AlertKind
    users: tuple[str, ...]
    answer_ids: tuple[str, ...]
    vote: int | None
    count: int
    begin: float
    end: float
    explanation: str


def find_bursts(votes: Iterable[CurrentVote], same_text: Mapping[str, str]) -> list[Alert]:
    """Alerts in order of time; the order of the votes does not matter.

    `same_text` maps answer ids to a key that answers which read the same share (the normalised
    text, or its hash); an answer without one is its own. Votes that were imported carry no times
    of their own, so leave them out.
    """
    ordered = sorted(votes, key=attrgetter("at", "user_id", "answer_id", "vote"))
    alerts = _pace(ordered) + _brigades(ordered, same_text)
    return sorted(alerts, key=attrgetter("begin", "kind", "users", "answer_ids"))


def _pace(ordered: Iterable[CurrentVote]) -> list[Alert]:
    by_user: dict[str, list[CurrentVote]] = {}
    for vote in ordered:
        by_user.setdefault(vote.user_id, []).append(vote)
    return [
        _alert(
            "pace",
            votes[begin:end],
            f"More than {PACE_VOTES} votes of one user within {PACE_SECONDS:.0f} s: faster than a "
            "person reads.",
        )
        for votes in by_user.values()
        if len(votes) > PACE_VOTES
        for begin, end in _merged(_windows(votes, PACE_SECONDS, at_least=PACE_VOTES + 1))
    ]


def _brigades(ordered: Sequence[CurrentVote], same_text: Mapping[str, str]) -> list[Alert]:
    times = [vote.at for vote in ordered]
    first_at: dict[str, float] = {}
    targets: dict[tuple[str, int], list[CurrentVote]] = {}  # by text and direction
    for vote in ordered:
        first_at.setdefault(vote.user_id, vote.at)
        text = same_text.get(vote.answer_id, vote.answer_id)
        targets.setdefault((text, vote.vote), []).append(vote)

    def newcomers(crowd: Iterable[CurrentVote]) -> int:
        return sum(vote.at - first_at[vote.user_id] < BRIGADE_SECONDS for vote in crowd)

    def is_brigade(crowd: Sequence[CurrentVote], target_votes: int) -> bool:
        if len(crowd) < BRIGADE_USERS and 2 * newcomers(crowd) <= len(crowd):
            return False
        return _chance(crowd, target_votes, times) < FALSE_ALERT / len(ordered)

    alerts = []
    for votes in targets.values():
        if len(votes) < BRIGADE_USERS_IF_NEW:
            continue  # as most are
        voters = _first_of_each_user(votes)
        windows = _windows(voters, BRIGADE_SECONDS, at_least=BRIGADE_USERS_IF_NEW)
        unlikely = (w for w in windows if is_brigade(voters[slice(*w)], len(votes)))
        for window in _merged(unlikely):
            crowd = voters[slice(*window)]
            reason = (
                f"{len(crowd)} users, {newcomers(crowd)} of them new, voted the same way on the "
                "same text: far more than its usual share of the votes of those minutes."
            )
            alerts.append(_alert("brigade", crowd, reason))
    return alerts


def _first_of_each_user(votes: Iterable[CurrentVote]) -> Sequence[CurrentVote]:
    first: dict[str, CurrentVote] = {}
    for vote in votes:
        first.setdefault(vote.user_id, vote)
    return list(first.values())


def _chance(crowd: Sequence[CurrentVote], target_votes: int, times: Sequence[float]) -> float:
    """The probability of a crowd of this size if its target had its usual share of the votes.

    Usual is what holds outside these minutes (one vote added to both sides, so never 0). Measured
    against the other votes of the same minutes, a busy hour and a store filled in an hour are no
    alarm. `target_votes` and `times` are of all votes: on this target, and on anything.
    """
    from scipy.special import bdtrc  # slow to import, and crowds are rare

    begin = crowd[0].at
    in_window = bisect_left(times, begin + BRIGADE_SECONDS) - bisect_left(times, begin)
    usual = (target_votes - len(crowd) + 1) / (len(times) - in_window + 1)
    # The first vote of a crowd opens the window, so it is no coincidence and does not count.
    return float(bdtrc(len(crowd) - 2, in_window - 1, min(1.0, usual)))


def _windows(
    votes: Sequence[CurrentVote], seconds: float, at_least: int
) -> Iterator[tuple[int, int]]:
    """Positions (from, to) of all votes less than `seconds` after one of them, if many enough.

    The votes are in order of time.
    """
    end = 0
    for begin, vote in enumerate(votes):
        while end < len(votes) and votes[end].at < vote.at + seconds:
            end += 1
        if end - begin >= at_least:
            yield begin, end


def _merged(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Windows in order of their begin, those that overlap joined into one."""
    merged: list[tuple[int, int]] = []
    for begin, end in windows:
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return merged


def _alert(kind: AlertKind, votes: Sequence[CurrentVote], explanation: str) -> Alert:
    directions = {vote.vote for vote in votes}
    return Alert(
        kind,
        tuple(sorted({vote.user_id for vote in votes})),
        tuple(dict.fromkeys(vote.answer_id for vote in votes)),
        directions.pop() if len(directions) == 1 else None,
        len(votes),
        votes[0].at,
        votes[-1].at,
        explanation,
    )
