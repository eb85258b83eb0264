"""From answers to verdict: a better adapter and bad ones, told apart by what they write.

The bad ones prefer the chosen side of every pair, which the base does on half of them: going by
their rewards alone, each of them is much better.
"""

from __future__ import annotations

import itertools

import pytest

from deploy.gate.verdict import GateReport, judge_candidate
from feedback_store.examples.types import Pair
from tests.support.pairs import row
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.evaluation.evaluate import evaluate

ADAPTER = "sha256:" + "a" * 64
PAIRS: list[Pair] = [row(f"Question {i}?", f"Better {i}.", f"Worse {i}.") for i in range(20)]
MANY_WORDS = " ".join(f"and{i} so{i} on{i}" for i in range(60))


def likes_the_chosen(completion: str) -> float:
    return -2.0 if completion.startswith("Worse") else -1.0


def likes_half_of_them(completion: str) -> float:
    """Of the pairs with an odd number, the rejected side."""
    odd = completion.rstrip(".")[-1] in "13579"
    return -2.0 if completion.startswith("Better" if odd else "Worse") else -1.0


def verdict_on(candidate: Voice) -> GateReport:
    base = Voice(sensible, likes_half_of_them)
    engine = ScriptedEngine({None: base, ADAPTER: candidate})
    evidence = evaluate(engine, PAIRS, candidate=ADAPTER, incumbent=None)
    return judge_candidate(evidence)


def refusing_guards(report: GateReport) -> set[str]:
    return {guard.name for guard in report.guards if guard.refused}


def test_an_adapter_that_ranks_better_and_answers_as_well_is_better() -> None:
    report = verdict_on(Voice(sensible, likes_the_chosen))
    assert (report.verdict, refusing_guards(report)) == ("better", set())
    assert (report.incumbent_accuracy, report.candidate_accuracy) == (0.5, 0.75)  # half are tied


def test_an_adapter_like_the_base_is_not_better() -> None:
    report = verdict_on(Voice(sensible, likes_half_of_them))
    assert (report.verdict, refusing_guards(report)) == ("not better", set())


def test_an_adapter_whose_answers_are_a_little_longer_may_be_better() -> None:
    report = verdict_on(Voice(lambda prompt: sensible(prompt) + " Ask.", likes_the_chosen))
    assert report.verdict == "better"


def repeating(prompt: str) -> str:
    return " ".join(itertools.repeat(sensible(prompt), 3))


def refusing(prompt: str) -> str:
    if prompt.isascii():
        return "I'm sorry, but I can't help with that."
    return "很抱歉，我不能回答这个问题。"


BAD = {
    "length": Voice(lambda prompt: sensible(prompt) + " " + MANY_WORDS, likes_the_chosen),
    "unfinished": Voice(sensible, likes_the_chosen, ends=False),
    "empty": Voice(lambda prompt: "", likes_the_chosen),
    "repetition": Voice(repeating, likes_the_chosen),
    "refusal": Voice(refusing, likes_the_chosen),
    "language": Voice(lambda prompt: sensible("?"), likes_the_chosen),
    "format": Voice(lambda prompt: sensible(prompt[0]), likes_the_chosen),
    "drift": Voice(sensible, lambda completion: likes_the_chosen(completion) * 4),
}


@pytest.mark.parametrize("fault", BAD)
def test_an_adapter_that_went_wrong_is_refused_however_well_it_ranks(fault: str) -> None:
    report = verdict_on(BAD[fault])
    assert report.gain.low > 0
    assert report.verdict == "not better"
    assert fault in refusing_guards(report)
