"""Detection of people who want answers of opposite length. Pure.

In the chat nobody judges another person's answers, so opposite wishes never meet in one answer,
where they would be set aside as contested. Trained on together they teach nothing: what the one
likes is what the other dislikes. Drops nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from statistics import median

from feedback_store.curation.bursts import FALSE_ALERT, Alert
from feedback_store.records import CurrentChoice, CurrentVote

LengthStatement = CurrentVote | CurrentChoice


def find_opposition(
    statements: Iterable[LengthStatement], lengths: Mapping[str, int]
) -> list[Alert]:
    """Return an alert if some people favour the longer answers and others the shorter ones.

    A choice favours length if its winner is the longer one; a vote, if it is up for an answer
    longer than the median of those that this person voted on, or down for a shorter one. Whoever
    does not mind the length favours it in half of the cases (a two-sided sign test, with
    Bonferroni's correction over people). `lengths` are those of the answers, in any unit.
    """
    by_user = {
        user: list(said)
        for user, said in groupby(
            sorted(statements, key=attrgetter("user_id", "event_id")), attrgetter("user_id")
        )
    }
    longer: list[str] = []
    shorter: list[str] = []
    for user, said in by_user.items():
        favours = _favours_length(said, lengths)
        if _p_value(favours) < FALSE_ALERT / len(by_user):
            (longer if 2 * sum(favours) > len(favours) else shorter).append(user)
    if not longer or not shorter:
        return []
    opposed = sorted(
        (s for user in [*longer, *shorter] for s in by_user[user]), key=attrgetter("at")
    )
    explanation = (
        f"People who want longer answers: {len(longer)}; shorter ones: {len(shorter)}. Together"
        " their statements cancel each other out, and no release can please both."
    )
    return [
        Alert(
            "opposed",
            (*longer, *shorter),
            tuple(dict.fromkeys(answer for each in opposed for answer in _answers(each))),
            None,
            len(opposed),
            opposed[0].at,
            opposed[-1].at,
            explanation,
        )
    ]


def _favours_length(said: Sequence[LengthStatement], lengths: Mapping[str, int]) -> list[bool]:
    """Return, for each statement of one person that tells, whether it favours the longer answer.

    Ties, two bad answers and answers of equal length tell nothing.
    """
    voted_on = [lengths[each.answer_id] for each in said if isinstance(each, CurrentVote)]
    usual = median(voted_on) if voted_on else 0
    found = []
    for each in said:
        if isinstance(each, CurrentVote):
            longer = (lengths[each.answer_id] - usual) * each.vote
        elif each.winner is None:
            continue
        else:
            (loser,) = each.answer_ids - {each.winner}
            longer = lengths[each.winner] - lengths[loser]
        if longer:
            found.append(longer > 0)
    return found


def _p_value(favours: Sequence[bool]) -> float:
    """Return the two-sided p-value of a sign test; 1 without any values."""
    from scipy.stats import binomtest  # slow to import, and a server looks seldom

    return float(binomtest(sum(favours), len(favours)).pvalue) if favours else 1.0


def _answers(statement: LengthStatement) -> Iterable[str]:
    if isinstance(statement, CurrentVote):
        return [statement.answer_id]
    return sorted(statement.answer_ids)
