"""The gate: is the candidate better than the incumbent? Pure: evaluation and thresholds in, verdict
out.

The statistic is the difference in accuracy of the implicit reward per token (`PairScores`; by their
implicit rewards RewardBench, too, compares models that DPO made: Lambert et al. 2024), on pairs
that neither was trained on, held out and gold together, and on held-out thumbs: the share in which
what people preferred gained more on the base model, ties counted as half, with a bootstrap over
conversations. A likelihood would not do: a model that has learnt to be brief need not find the
words of a brief answer likelier than those of a long one. The "longer answer wins" baseline is
reported as well, since it beats many models. A candidate that a guard refuses is not better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any, Literal

import numpy as np

from deploy.gate.guards import GuardFinding, check
from deploy.gate.thresholds import Thresholds, default_thresholds
from engine.storage import short_id
from tuning.evaluation.evaluate import Evaluation, evaluation_from_dict
from tuning.evaluation.judgements import ranked_right
from tuning.evaluation.preferences import PairScores
from tuning.evaluation.roles import ModelRole
from tuning.evaluation.statistics import Interval, clustered_mean, win_rate

GateVerdict = Literal["better", "not better", "not enough data"]
# The share of pairs that the base model, whose rewards are all 0, ranks rightly
BASE_ACCURACY = 0.5


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict and its figures. Gold pairs are among `pairs` and also counted apart.

    Accuracies are those of the implicit reward per token, of which the base model has 0.5.
    `gain` and `conversations` are those of pairs and lone judgements together.
    """

    verdict: GateVerdict
    reason: str
    pairs: int
    conversations: int
    candidate_accuracy: float
    incumbent_accuracy: float
    longer_wins_accuracy: float
    gain: Interval
    gold_pairs: int
    candidate_gold_accuracy: float | None
    incumbent_gold_accuracy: float | None
    guards: tuple[GuardFinding, ...]
    ai_win_rate: Interval | None
    judgements: int = 0
    candidate_judgement_accuracy: float | None = None
    incumbent_judgement_accuracy: float | None = None
    gain_on_base: Interval | None = None  # None in a report of an earlier version

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def judge_document(document: Mapping[str, Any], thresholds: Thresholds) -> GateReport:
    """Judge by the content of an `evaluation.json`, which holds all that a verdict rests on.

    Raises `InvalidInput` for a document of another form.
    """
    return judge_candidate(evaluation_from_dict(document.get("evidence")), thresholds)


def judge_candidate(evaluation: Evaluation, thresholds: Thresholds | None = None) -> GateReport:
    """Compare candidate and incumbent in one evaluation, by the shipped thresholds or others.

    A pair gains where the candidate's reward alone ranks its sides rightly; a lone judgement by
    the share of the answers judged otherwise that the candidate's reward puts it on the right side
    of, less the incumbent's share. Each counts once, and whole conversations are resampled.
    """
    thresholds = thresholds or default_thresholds()
    pairs = evaluation.pairs
    gold = [pair for pair in pairs if pair.gold]
    candidate, incumbent = (
        ranked_right(evaluation.judgements, role) for role in ("candidate", "incumbent")
    )
    judged = evaluation.judgements if candidate else ()
    clusters = [pair.conversation_id for pair in pairs] + [j.conversation_id for j in judged]
    conversations = len(set(clusters))
    gains = [pair.ranked_right("candidate") - pair.ranked_right("incumbent") for pair in pairs]
    gains += [new - old for new, old in zip(candidate, incumbent, strict=True)]
    own = [pair.ranked_right("candidate") - BASE_ACCURACY for pair in pairs]
    own += [new - BASE_ACCURACY for new in candidate]
    gain = clustered_mean(gains, clusters) if gains else Interval(0.0, -1.0, 1.0)
    guards = check(evaluation, thresholds.guards)
    verdict, reason = _verdict(gain, conversations, thresholds, guards)
    return GateReport(
        verdict=verdict,
        reason=reason,
        pairs=len(pairs),
        conversations=conversations,
        candidate_accuracy=_accuracy(pairs, "candidate"),
        incumbent_accuracy=_accuracy(pairs, "incumbent"),
        longer_wins_accuracy=_mean([pair.longer_right for pair in pairs]),
        gain=gain,
        gold_pairs=len(gold),
        candidate_gold_accuracy=_accuracy(gold, "candidate") if gold else None,
        incumbent_gold_accuracy=_accuracy(gold, "incumbent") if gold else None,
        guards=guards,
        ai_win_rate=win_rate(*astuple(evaluation.opinions)) if evaluation.opinions else None,
        judgements=len(judged),
        candidate_judgement_accuracy=_mean(candidate) if candidate else None,
        incumbent_judgement_accuracy=_mean(incumbent) if incumbent else None,
        gain_on_base=clustered_mean(own, clusters) if own else None,
    )


def gate_report_of(document: Mapping[str, Any]) -> GateReport:
    """The report of a document that `GateReport.as_dict` made; other keys are passed over."""
    known = {each.name for each in fields(GateReport)}
    values = {name: value for name, value in document.items() if name in known}
    for name in ("gain", "gain_on_base", "ai_win_rate"):
        if values.get(name) is not None:
            values[name] = Interval(**values[name])
    values["guards"] = tuple(
        GuardFinding(**{**guard, "harm": Interval(**guard["harm"])}) for guard in values["guards"]
    )
    return GateReport(**values)


def verdict_line(bundle: str, gate: GateReport) -> str:
    """Return the gate's verdict on a bundle as one line."""
    return f"{short_id(bundle)}: {gate.verdict} ({gate.reason})"


def _verdict(
    gain: Interval, conversations: int, thresholds: Thresholds, guards: Sequence[GuardFinding]
) -> tuple[GateVerdict, str]:
    """Guards come first: their findings do not depend on the number of pairs."""
    if faults := [_fault(guard) for guard in guards if guard.refused]:
        return "not better", "refused: the candidate " + "; ".join(faults)
    if conversations < thresholds.min_conversations:
        return "not enough data", (
            f"{conversations} held-out conversations; {thresholds.min_conversations} are needed"
            " for an interval"
        )
    interval = f"gain {gain.estimate:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"
    if gain.low > thresholds.min_gain:
        return "better", f"{interval} lies above {thresholds.min_gain:g}"
    return "not better", f"{interval} does not lie above {thresholds.min_gain:g}"


def _fault(guard: GuardFinding) -> str:
    return (
        f"{guard.fault} ({guard.name} {guard.harm.estimate:+.2f}, at least {guard.harm.low:+.2f})"
    )


def _accuracy(pairs: Sequence[PairScores], role: ModelRole) -> float:
    return _mean([pair.ranked_right(role) for pair in pairs])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.5
