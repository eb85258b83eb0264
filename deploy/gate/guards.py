"""Guards: ways in which a candidate must not be worse, however well it ranks the pairs.

Pure: evaluation in, findings out. Preference accuracy can rise while answers become long, empty,
repetitive or refusing, since it never looks at what the model writes. Each guard is a paired
comparison with the incumbent on the same items, and refuses when the whole confidence interval of
the harm lies above what is tolerated.

People may ask for longer answers by what they choose. Growth up to that of their choices is no
harm; answers that do not end are, since nobody chose those.

Many guards refuse a harmless candidate more often than one. So each interval is as wide as
Bonferroni's correction asks, for all of them together to do so in about 5% of cases. A guard can
only refuse, so none of them makes it easier to pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.gate.thresholds import GuardThresholds
from tuning.evaluation.answers import AnswerMeasures
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.statistics import Interval, clustered_mean

Harms = Sequence[tuple[str, float]]  # (what it was found on, by how much the candidate is worse)


@dataclass(frozen=True, slots=True)
class GuardFinding:
    """The finding of a guard: the harm with its interval, and whether it refuses the candidate."""

    name: str
    fault: str
    harm: Interval
    tolerance: float
    items: int
    refused: bool


def _nothing_wished(_: Evaluation, __: GuardThresholds) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Guard:
    """A measure of harm; `fault` completes "the candidate ...".

    How much is tolerated is in `deploy.gate.thresholds`, by its name. Where people's own choices
    ask for more than that, `wished` returns how much.
    """

    name: str
    fault: str
    harms: Callable[[Evaluation], Harms]
    wished: Callable[[Evaluation, GuardThresholds], float] = _nothing_wished


def check(evaluation: Evaluation, thresholds: GuardThresholds) -> tuple[GuardFinding, ...]:
    """Findings of the guards that have enough items to judge by."""
    return tuple(
        finding
        for guard in GUARDS
        if (finding := _finding(guard, evaluation, thresholds)) is not None
    )


def _finding(
    guard: Guard, evaluation: Evaluation, thresholds: GuardThresholds
) -> GuardFinding | None:
    harms = guard.harms(evaluation)
    harm = _mean_harm(harms, thresholds)
    if harm is None:
        return None
    tolerance = max(thresholds.tolerances[guard.name], guard.wished(evaluation, thresholds))
    items = len({item for item, _ in harms})
    return GuardFinding(guard.name, guard.fault, harm, tolerance, items, harm.low > tolerance)


def _mean_harm(harms: Harms, thresholds: GuardThresholds) -> Interval | None:
    """The mean with its interval; None for too few items."""
    items = [item for item, _ in harms]
    if len(set(items)) < thresholds.min_items:
        return None
    return clustered_mean(
        [value for _, value in harms],
        items,
        confidence=1 - 2 * thresholds.false_alarms / len(GUARDS),  # two tails, of which one refuses
    )


def _on_answers(bad: Callable[[AnswerMeasures], float | None]) -> Callable[[Evaluation], Harms]:
    """Return the harm by prompt: how much worse the candidate's answer is than the incumbent's."""

    def harms(evaluation: Evaluation) -> Harms:
        found = []
        for answer in evaluation.answers:
            new, old = bad(answer.measures["candidate"]), bad(answer.measures["incumbent"])
            if new is not None and old is not None:
                found.append((answer.prompt_id, new - old))
        return found

    return harms


def _log_length(answer: AnswerMeasures) -> float:
    return math.log(max(1, answer.tokens))


def _growth_chosen(evaluation: Evaluation, thresholds: GuardThresholds) -> float:
    """Log of the ratio of lengths between the side that people chose and the other, on average.

    Over the held-out pairs, in characters; 0 unless its whole interval lies above 0.
    """
    growth = _mean_harm(
        [
            (p.conversation_id, math.log(max(1, p.chosen_chars) / max(1, p.rejected_chars)))
            for p in evaluation.pairs
        ],
        thresholds,
    )
    return growth.estimate if growth is not None and growth.low > 0 else 0.0


def _unformed(answer: AnswerMeasures) -> float | None:
    return None if answer.format_kept is None else float(not answer.format_kept)


def _drift(evaluation: Evaluation) -> Harms:
    return [(drift.prompt_id, drift.kl["candidate"]) for drift in evaluation.drift]


def _gold(evaluation: Evaluation) -> Harms:
    return [
        (p.conversation_id, p.ranked_right("incumbent") - p.ranked_right("candidate"))
        for p in evaluation.pairs
        if p.gold
    ]


GUARDS = (
    Guard("length", "gives longer answers", _on_answers(_log_length), _growth_chosen),
    # Where the incumbent's answers are near the token limit the ratio cannot show growth; this can.
    Guard("unfinished", "does not come to an end", _on_answers(lambda a: not a.finished)),
    Guard("empty", "gives empty answers", _on_answers(lambda a: a.empty)),
    Guard("repetition", "repeats itself", _on_answers(lambda a: a.repetition)),
    Guard("refusal", "refuses to answer", _on_answers(lambda a: a.refused)),
    Guard("language", "leaves the language", _on_answers(lambda a: not a.language_kept)),
    Guard("format", "leaves the form asked for", _on_answers(_unformed)),
    Guard("drift", "is far from the base model", _drift),
    Guard("gold", "ranks fewer gold pairs rightly", _gold),
)
