"""The command behind docs/results.md: its figures, its page, and one run on a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import Bench, measure_all
from benchmarks.results_figures import (
    answer_measures,
    judgement_measures,
    longer_wins,
    pair_measures,
)
from benchmarks.results_page import (
    PAGE,
    demo_document,
    keep_document,
    last_document,
    verdict,
    write_figures,
)
from benchmarks.results_runs import Sizes, cmath_pairs, experiments
from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.request import Score
from feedback_store.examples.types import Demonstration, Origin, Side, Unpaired
from tests.support.pairs import row
from tuning.evaluation.preferences import PairScores, Preference

pytestmark = pytest.mark.integration


def pair_scores(conversation: str, chosen: float, rejected: float) -> PairScores:
    preference = Preference(chosen, rejected, chosen, rejected)
    return PairScores(conversation, False, {"candidate": preference}, 3, 4)


def judged(number: int, label: bool) -> Unpaired:
    side = Side("Yes.", "", True, f"answer-{number}", "imported", None)
    origin = Origin(f"conversation-{number}", "hash", (number,), ("ann",))
    return Unpaired(f"id-{number}", (Message("user", "Is it?"),), side, label, "vote", origin)


def test_accuracy_before_and_after_is_that_of_the_pairs_and_its_difference_the_mean_of_seeds() -> (
    None
):
    pairs = [row("one", "good", "bad"), row("two", "right", "wrong")]
    before = [pair_scores("one", -2, -1), pair_scores("two", -1, -2)]  # wrong, right
    mended = [pair_scores("one", -1, -2), pair_scores("two", -1, -2)]  # both right

    found = pair_measures(pairs, before, [mended, before])["accuracy"]

    assert (found["before"], found["after"]) == (0.5, [1.0, 0.5])
    assert found["difference"]["estimate"] == 0.25


def test_the_implicit_reward_is_right_where_the_chosen_side_rose_more() -> None:
    pairs = [row("one", "good", "bad"), row("two", "right", "wrong")]
    before = [pair_scores("one", -2, -1), pair_scores("two", -1, -2)]
    after = [pair_scores("one", -2, -1.5), pair_scores("two", -1.5, -2)]  # +0.5, -0.5

    found = pair_measures(pairs, before, [after, before])["reward_accuracy"]

    assert (found["before"], found["after"]) == (0.5, [0.5, 0.5])  # of no change, half
    risen = [pair_scores("one", -1, -1.5), pair_scores("two", -1, -3)]
    assert pair_measures(pairs, before, [risen])["reward_accuracy"]["after"] == [1.0]


def test_arithmetic_without_wrong_answers_becomes_pairs_with_those_of_other_questions(
    tmp_path: Path,
) -> None:
    rows = [("two and three", "5"), ("four and five", "9"), ("ten and one", "11")]
    source = tmp_path / "cmath.jsonl"
    source.write_text("\n".join(json.dumps({"input": q, "golden": a}) for q, a in rows))
    cmath_pairs(source, tmp_path / "pairs.jsonl")
    found = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [(p["chosen"], p["rejected"]) for p in found] == [("5", "9"), ("9", "5"), ("11", "?")]


def test_longer_wins_counts_the_pairs_whose_chosen_side_is_longer() -> None:
    pairs = [row("one", "the longer", "short"), row("two", "short", "the longer")]

    assert longer_wins(pairs)["estimate"] == 0.5


def test_a_long_answer_weighs_by_its_tokens_in_the_mean_log_probability() -> None:
    answers = [
        Demonstration(e.id, e.prompt, e.completion, "vote", e.origin)
        for e in (judged(1, True), judged(2, True))
    ]
    before, after = (
        [Score((-1.0,)), Score((-3.0, -3.0, -3.0))],
        [Score((-1.0,)), Score((-1.0,) * 3)],
    )

    found = answer_measures(answers, before, [after])["logprob_per_token"]

    assert (found["before"], found["after"]) == (-2.5, [-1.0])  # (-1 - 9) / 4 and -4 / 4
    assert found["difference"]["estimate"] == 1.5


def test_lone_judgements_are_told_apart_by_how_far_good_answers_rose_above_bad_ones() -> None:
    answers = [judged(1, True), judged(2, True), judged(3, False), judged(4, False)]
    before = [Score((-2.0,)), Score((-4.0,)), Score((-1.0,)), Score((-3.0,))]
    # The good ones rise by 1 and 3 nats, the bad ones by 0 and 2: 1 > 0, 1 < 2, 3 > 0, 3 > 2
    after = [Score((-1.0,)), Score((-1.0,)), Score((-1.0,)), Score((-1.0,))]

    found = judgement_measures(answers, before, [after])

    assert (found["auc_log_ratio"]["before"], found["auc_log_ratio"]["after"]) == (0.5, [0.75])
    # Before: -2 is above -3 alone, -4 above none. After, all are level
    assert (found["auc_per_token"]["before"], found["auc_per_token"]["after"]) == (0.25, [0.5])
    assert found["gap_per_token"]["before"] == -1.0  # -3 less -2
    assert found["gap_per_token"]["difference"]["estimate"] == pytest.approx(1.0)


def test_an_answer_that_is_all_there_is_of_its_kind_shows_nothing() -> None:
    answers = [judged(1, True), judged(2, False), judged(3, False)]
    before, after = [Score((-1.0,))] * 3, [Score((-0.5,)), Score((-2.0,)), Score((-2.0,))]

    found = judgement_measures(answers, before, [after])["auc_log_ratio"]

    assert verdict(found["difference"]) == "no difference shown"


def test_an_interval_alone_decides_what_the_page_calls_better() -> None:
    assert verdict({"low": 0.01, "high": 0.2}) == "better"
    assert verdict({"low": -0.2, "high": -0.01}) == "worse"
    assert verdict({"low": 0.0, "high": 0.2}) == "no difference shown"


def test_a_command_that_was_cut_off_leaves_its_last_whole_document() -> None:
    whole = json.dumps({"experiments": {"kto": {}}})

    assert last_document(f"{json.dumps({'experiments': {}})}\n{whole}\n{whole[:9]}") == json.loads(
        whole
    )
    with pytest.raises(ValueError, match="no document"):
        last_document("")


def questions(file: Path) -> None:
    """Forty sums in the form of GSM8K's solutions, each with a right and a wrong answer."""
    lines = [
        {
            "question": f"What is {n} and {n + 1}?",
            "one": {"is_correct": True, "solution": f"It is {2 * n + 1}."},
            "two": {"is_correct": False, "solution": f"I say {3 * n + 7}, or so."},
        }
        for n in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")


@pytest.fixture(scope="module")
def document(
    tiny_base: BaseModel, kernel_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("results")
    questions(root / "gsm8k_solutions_dev600.jsonl")
    engine = FastEngine(tiny_base, kernel_cache=kernel_cache)
    sizes = Sizes(training=8, held_out=5, training_tokens=256, held_out_tokens=256)
    bench = Bench(tiny_base, engine, root, root, sizes, seeds=[0])
    found = measure_all(bench, {"gsm8k": experiments()["gsm8k"]}, each_run=False)
    engine.close()
    return found


def test_a_run_trains_and_measures_what_it_was_told_to(document: dict[str, Any]) -> None:
    found = document["experiments"]["gsm8k"]

    assert (found["training"], found["held_out"], found["held_out_conversations"]) == (8, 5, 5)
    assert found["longer_wins"]["estimate"] == 0.0  # every wrong answer is the longer one
    for recipe in found["recipes"].values():
        likelihood = recipe["measures"]["chosen_logprob_per_token"]
        assert recipe["seeds"] == [0]
        assert math.isfinite(likelihood["before"])
        assert likelihood["after"][0] != likelihood["before"]  # the adapter was there


def test_the_page_has_the_figures_of_the_documents_between_its_marks(
    document: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")

    write_figures(page, [document])
    once = page.read_text("utf-8")
    write_figures(page, [document])

    before = document["experiments"]["gsm8k"]["recipes"]["auto"]["measures"]["accuracy"]
    assert f"| auto | accuracy, per token | {before['before']:.3f} |" in once
    assert "## What did not improve\n- `gsm8k`" in once
    assert page.read_text("utf-8") == once


def demo(**changed: Any) -> dict[str, Any]:
    figures = {
        "win_rate": {"estimate": 0.9, "low": 0.8, "high": 0.96, "prompts": 40},
        "median_tokens_before": 160,
        "median_tokens_after": 43.0,
        "complete_before": 0.1,
        "complete_after": 0.875,
    }
    about = {"evidence": "comparisons", "seed": 1, "reversed_share": 0.0}
    gate = {"gate": {"verdict": "better"}, "alerts": ["opposed", "pace"], "total_seconds": 150.0}
    made = {"processor": "Xeon", "units": "AMX", "threads": 1}
    return {**figures, **about, **gate, "made_with": made, "other_prompts": None, **changed}


def test_a_demos_last_line_becomes_a_row_for_each_kind_of_prompt(tmp_path: Path) -> None:
    others = {**demo()["win_rate"], "prompts": 60}
    found = demo(reversed_share=0.2, other_prompts={**demo(), "win_rate": others})
    read = demo_document(f"start: 2 s\n{json.dumps(found)}\n")
    assert read == found
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")
    write_figures(page, [], [found])
    row = "0.90 (0.80 to 0.96) | 160 -> 43 | 10% -> 88% | better | 2.5 | Xeon, AMX, threads: 1 |"
    text = page.read_text("utf-8")
    assert f"| comparisons, 20% reversed | 1 | 40 unseen | {row}" in text
    assert f"| comparisons, 20% reversed | 1 | 60 of another kind | {row}" in text


def test_answers_drawn_as_in_the_chat_have_rows_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")
    others = {**demo()["win_rate"], "estimate": 0.83, "prompts": 49}
    drawn = {**demo(), "other_prompts": {**demo(), "win_rate": others}}
    write_figures(page, [], [demo(drawn=drawn)])
    rows = page.read_text("utf-8")
    assert "| comparisons | 1 | 40 unseen | 0.90 (0.80 to 0.96) |" in rows
    assert "| comparisons | 1 | 40 unseen, drawn | 0.90 (0.80 to 0.96) |" in rows
    assert "| comparisons | 1 | 49 of another kind, drawn | 0.83 (0.80 to 0.96) |" in rows


def test_a_kept_document_is_the_last_one_without_the_paths_of_its_machine(tmp_path: Path) -> None:
    output = tmp_path / "thumbs-1.jsonl"
    output.write_text(f"start: 2 s\n{json.dumps({**demo(), 'home': '/somewhere'})}\n", "utf-8")

    keep_document(output, tmp_path / "measured")

    kept = (tmp_path / "measured" / "thumbs-1.json").read_text("utf-8")
    assert demo_document(kept) == demo()


def test_several_seeds_of_a_demo_have_a_row_of_means(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")
    worse = {**demo()["win_rate"], "estimate": 0.7}
    write_figures(page, [], [demo(seed=1), demo(seed=0, win_rate=worse)])
    rows = page.read_text("utf-8")
    assert "| comparisons | 2 seeds | unseen | 0.80 (seeds 0.70 to 0.90) |" in rows
    assert rows.index("| comparisons | 0 |") < rows.index("| comparisons | 1 |")


def test_a_demo_by_another_recipe_names_what_differs(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")
    write_figures(page, [], [demo(recipe={"joint.label_smoothing": 0.0}), demo(seed=2, recipe={})])
    rows = page.read_text("utf-8")
    assert "| comparisons, `joint.label_smoothing` 0.0 | 1 | 40 unseen |" in rows
    assert "| comparisons | 2 | 40 unseen |" in rows


def test_opposed_users_have_a_row_for_their_own_examples_and_for_the_release(
    tmp_path: Path,
) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")
    lost = {**demo(), "win_rate": {"estimate": 0.4, "low": 0.3, "high": 0.5, "prompts": 40}}
    people = {"full": {"own_examples": demo(), "release": lost}}
    write_figures(page, [], [demo(opposed=people)])
    text, on = page.read_text("utf-8"), "Xeon, AMX, threads: 1"
    assert (
        f"| full | own examples | 1 | 0.90 (0.80 to 0.96) | 160 -> 43 | yes | - | 2.5 | {on} |\n"
        f"| full | release | 1 | 0.40 (0.30 to 0.50) | 160 -> 43 | yes | better | 2.5 | {on} |"
    ) in text
    assert "(`burnish demo`)" not in text.split("demos: end")[0]  # no table of other runs


def test_each_round_of_a_demo_is_a_row(tmp_path: Path) -> None:
    one = {
        **demo(),
        "round": 4,
        "wish": "full",
        "perplexity": {"base": 10.0, "release": 10.25},
        "gate": {"verdict": "not better"},
        "pairs": 14,
        "older_left_out": True,
    }
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")
    write_figures(page, [], [demo(evidence="thumbs", rounds=[one])])
    win = "0.90 (0.80 to 0.96) | 160 -> 43 | 10.00 -> 10.25 | not better | 2.5 | Xeon"
    row = f"| thumbs | 4 | full | 14, the newer ones | {win}"
    assert row in page.read_text("utf-8")


def test_the_output_of_another_command_is_no_demo() -> None:
    assert demo_document(json.dumps({"experiments": {}})) is None
    assert demo_document("") is None
