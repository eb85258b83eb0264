"""An evaluation on disk: the figures derived by hand, and a page that needs nobody else."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from engine.storage import folder_of, verify
from tests.support.pairs import row
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.evaluation.answers import AnswerMeasures, PromptMeasures
from tuning.evaluation.evaluate import Evaluation, evaluate
from tuning.evaluation.generic import Drift, Passage
from tuning.evaluation.page import FIGURES
from tuning.evaluation.preferences import PairScores, Preference
from tuning.evaluation.report import write_report
from tuning.evaluation.summary import summarise

ABOUT = {
    "candidate": "sha256:" + "a" * 64,
    "incumbent": None,
    "base": "sha256:" + "b" * 64,
    "snapshot": "sha256:" + "c" * 64,
}
GUARD = {
    "name": "length",
    "fault": "gives longer answers",
    "tolerance": 0.4,
    "items": 24,
    "harm": {"estimate": 0.5, "low": 0.45, "high": 0.55},
    "refused": True,
}
VERDICT = {"verdict": "not better", "reason": "refused: <it> grew", "guards": [GUARD]}


def two_pairs() -> tuple[PairScores, ...]:
    """Held out: only the candidate is right. Gold: both are, but in sum neither."""
    right, wrong = Preference(-1.0, -2.0, -3.0, -6.0), Preference(-2.0, -1.5, -6.0, -5.0)
    close = Preference(-1.0, -1.5, -9.0, -3.0)
    return (
        PairScores("one", False, {"candidate": right, "incumbent": wrong, "base": wrong}, 9, 5),
        PairScores("two", True, dict.fromkeys(("candidate", "incumbent", "base"), close), 2, 5),
    )


def answered(tokens: int, **other: Any) -> AnswerMeasures:
    good = {
        "finished": True,
        "empty": False,
        "repetition": 0.0,
        "refused": False,
        "language_kept": True,
        "format_kept": None,
    }
    return AnswerMeasures(tokens=tokens, **{**good, **other})


def by_hand() -> Evaluation:
    old = answered(10)
    long, lost = answered(40, repetition=0.5), answered(10, format_kept=False)
    kept = answered(10, format_kept=True)
    return Evaluation(
        pairs=two_pairs(),
        answers=(
            PromptMeasures("p", None, {"candidate": long, "incumbent": old, "base": old}),
            PromptMeasures("q", "thought", {"candidate": lost, "incumbent": kept, "base": kept}),
        ),
        drift=(
            Drift("p", 10, {"candidate": 0.2, "incumbent": 0.0, "base": 0.0}),
            Drift("q", 30, {"candidate": 0.6, "incumbent": 0.0, "base": 0.0}),
        ),
        passages=(Passage("m", 4, {"candidate": -8.0, "incumbent": -4.0, "base": -4.0}),),
    )


def test_the_figures_of_each_model_are_means_over_what_was_measured() -> None:
    candidate = summarise(by_hand())["models"]["candidate"]
    assert candidate["accuracy"] == 1.0
    assert candidate["accuracy_summed"] == 0.5
    assert candidate["margin_per_token"] == pytest.approx((1.0 + 0.5) / 2)
    assert candidate["chosen_logprob_per_token"] == -1.0
    assert candidate["kl_to_base_per_token"] == pytest.approx((10 * 0.2 + 30 * 0.6) / 40)
    assert candidate["perplexity"] == pytest.approx(math.exp(2))
    assert candidate["median_answer_tokens"] == 25
    assert candidate["length_ratio_to_incumbent"] == pytest.approx(math.sqrt(4 * 1))
    assert candidate["repetition"] == 0.25
    assert (candidate["format_kept"], candidate["thoughts_parsed"]) == (0.0, 0.0)


def test_gold_the_baseline_and_the_differences_stand_beside() -> None:
    summary = summarise(by_hand())
    assert (summary["pairs"], summary["gold_pairs"], summary["longer_wins_accuracy"]) == (2, 1, 0.5)
    assert summary["models"]["incumbent"]["accuracy"] == 0.5
    assert summary["gold"]["incumbent"]["accuracy"] == 1.0
    difference = summary["differences"]["incumbent"]
    assert difference["accuracy"] == {"estimate": 0.5, "low": 0.0, "high": 1.0}
    assert difference["chosen_logprob_per_token"]["estimate"] == pytest.approx((1.0 + 0.0) / 2)
    assert summary["differences"]["base"] == difference  # the incumbent is like the base here


def test_what_was_not_measured_has_no_figure() -> None:
    summary = summarise(Evaluation(()))
    assert set(summary["models"]["candidate"].values()) == {None}
    assert summary["differences"] == {"incumbent": {}, "base": {}}


def test_an_evaluation_is_published_whole_and_the_same_one_only_once(tmp_path: Path) -> None:
    digest = write_report(tmp_path, by_hand(), ABOUT, VERDICT)
    assert write_report(tmp_path, by_hand(), ABOUT, VERDICT) == digest
    assert verify(tmp_path, digest) == []
    document = json.loads((folder_of(tmp_path, digest) / "evaluation.json").read_bytes())
    assert document["format"] == "burnish-evaluation/1"
    assert {key: document[key] for key in ABOUT} == ABOUT
    assert document["verdict"] == VERDICT
    assert document["summary"] == json.loads(json.dumps(summarise(by_hand())))
    assert [pair["conversation"] for pair in document["evidence"]["pairs"]] == [0, 1]


def page(root: Path, evidence: Evaluation) -> str:
    digest = write_report(root, evidence, ABOUT, VERDICT)
    return (folder_of(root, digest) / "evaluation.html").read_text("utf-8")


def test_the_page_shows_verdict_and_plots_and_asks_no_other_server(tmp_path: Path) -> None:
    html = page(tmp_path, by_hand())
    assert "<h1>not better</h1><p>refused: &lt;it&gt; grew</p>" in html
    assert html.count("Plotly.newPlot") >= 6
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", html)


def test_the_page_has_words_for_each_figure_and_leaves_out_what_nobody_measured(
    tmp_path: Path,
) -> None:
    assert list(FIGURES) == list(summarise(by_hand())["models"]["base"])
    html = page(tmp_path, by_hand())
    assert f"<td>{FIGURES['accuracy']}</td>" in html
    assert FIGURES["reward_greedy"] not in html  # no reward model has judged


def test_a_page_can_be_drawn_of_an_evaluation_without_pairs(tmp_path: Path) -> None:
    engine = ScriptedEngine({None: Voice(sensible)})
    evidence = evaluate(engine, [], candidate=None, incumbent=None)
    assert "<h2>Guards</h2>" in page(tmp_path, evidence)


def test_a_page_has_no_word_of_the_pairs(tmp_path: Path) -> None:
    engine = ScriptedEngine({None: Voice(sensible)})
    pairs = [row("Ostrich?", "Zeppelins.", "Marzipan.")]
    evidence = evaluate(engine, pairs, candidate=None, incumbent=None)
    html = page(tmp_path, evidence)
    assert not any(word in html for word in ("Ostrich", "Zeppelins", "Marzipan"))
