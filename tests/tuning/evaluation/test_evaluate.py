"""The gate's evidence: scores against plain forward passes, and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from engine.reference import ReferenceEngine
from tests.helpers import make_bundle
from tests.support.judges import LengthScorer, ScriptedJudge
from tests.support.pairs import row
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.evaluation.evaluate import Evaluation, evaluate
from tuning.evaluation.preferences import Preference, score_pairs
from tuning.evaluation.roles import MODEL_ROLES, adapters_of, for_each_role
from tuning.evaluation.summary import summarise

ROWS = [
    row("Say hello.", "Hello there!", "No.", thoughts=("A greeting.", "")),
    row("And the sea?", "Wide.", "The sea is", rejected_complete=False),
]


@pytest.fixture(scope="module")
def engine(tiny_base: BaseModel) -> Iterator[ReferenceEngine]:
    engine = ReferenceEngine(tiny_base, dtype=torch.float32)
    yield engine
    engine.close()


@torch.no_grad()
def mean_logprob(model: Any, prompt_ids: list[int], completion_ids: list[int]) -> float:
    logits = model(input_ids=torch.tensor([prompt_ids + completion_ids])).logits[0]
    predicted = logits[len(prompt_ids) - 1 : -1].log_softmax(-1)
    picked = predicted[torch.arange(len(completion_ids)), torch.tensor(completion_ids)]
    return float(picked.mean())


def test_each_side_is_scored_by_its_tokens_summed_and_per_token(
    engine: ReferenceEngine, renderer: Renderer, tokenizer: Any, tiny_base: BaseModel
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    end = [tokenizer.eos_token_id]
    found = score_pairs(engine, ROWS, adapters_of(None, None))
    for scores, pair in zip(found, ROWS, strict=True):
        prompt = list(renderer.prompt(pair.prompt))
        chosen = tokenizer.encode(pair.chosen.full_text, add_special_tokens=False) + end
        rejected = tokenizer.encode(pair.rejected.full_text, add_special_tokens=False)
        rejected += end if pair.rejected.complete else []
        good, bad = (mean_logprob(model, prompt, ids) for ids in (chosen, rejected))
        for preference in scores.preferences.values():
            assert preference.chosen_per_token == pytest.approx(good, rel=1e-4)
            assert preference.rejected_per_token == pytest.approx(bad, rel=1e-4)
            assert preference.chosen_summed == pytest.approx(good * len(chosen), rel=1e-4)
            assert preference.rejected_summed == pytest.approx(bad * len(rejected), rel=1e-4)
            assert preference.margin == pytest.approx(good - bad, rel=1e-3)
        assert (scores.chosen_chars, scores.rejected_chars) == (
            len(pair.chosen.full_text),
            len(pair.rejected.full_text),
        )
        assert scores.conversation_id == pair.origin.conversation_id


def test_the_models_are_not_mixed_up(
    engine: ReferenceEngine, tiny_base: BaseModel, tmp_path: Path
) -> None:
    new, old = make_bundle(tmp_path, tiny_base, seed=1), make_bundle(tmp_path, tiny_base, seed=2)

    def under(candidate: str | None, incumbent: str | None) -> list[dict[str, float]]:
        """The log-probability of each pair's chosen side in each role."""
        scores = score_pairs(engine, ROWS, adapters_of(candidate, incumbent))
        return [{role: s.preferences[role].chosen_summed for role in MODEL_ROLES} for s in scores]

    for bundle in (new, old):
        engine.load_adapter(bundle, tmp_path / bundle.removeprefix("sha256:"))
    for both, one, other, none in zip(
        under(new, old), under(new, None), under(old, None), under(None, None), strict=True
    ):
        assert both["candidate"] == pytest.approx(one["candidate"])
        assert both["incumbent"] == pytest.approx(other["candidate"])
        assert both["base"] == one["incumbent"] == one["base"] == pytest.approx(none["candidate"])
        assert len({round(value, 3) for value in both.values()}) == 3


def test_an_adapter_in_two_roles_is_measured_once() -> None:
    asked: list[str | None] = []

    def measure(adapter: str | None) -> str:
        asked.append(adapter)
        return f"of {adapter}"

    found = for_each_role(adapters_of("new", None), measure)
    assert found == {"candidate": "of new", "incumbent": "of None", "base": "of None"}
    assert asked == ["new", None]


@pytest.mark.parametrize(
    ("preference", "right", "right_summed"),
    [
        (Preference(-1.0, -2.0, -10.0, -4.0), 1.0, 0.0),  # the longer side is dearer in sum
        (Preference(-2.0, -1.0, -2.0, -9.0), 0.0, 1.0),
        (Preference(-1.0, -1.0, -3.0, -3.0), 0.5, 0.5),
    ],
)
def test_a_preference_is_right_where_the_chosen_side_is_likelier(
    preference: Preference, right: float, right_summed: float
) -> None:
    assert (preference.right, preference.right_summed) == (right, right_summed)


# The whole


def played(judge: Any = None) -> tuple[ScriptedEngine, Evaluation]:
    engine = ScriptedEngine({None: Voice(sensible), "new": Voice(lambda _: "Just a word.")})
    gold = [row("Marked?", "Yes.", "No.")]
    evidence = evaluate(engine, ROWS, gold, candidate="new", incumbent=None, judge=judge)
    return engine, evidence


def test_everything_that_is_promised_is_measured_of_every_model() -> None:
    _, evidence = played()
    assert [pair.gold for pair in evidence.pairs] == [False, False, True]
    assert len(evidence.answers) == 24
    assert len(evidence.drift) == 21  # every plain prompt
    assert len(evidence.passages) == 8
    by_role = [
        *(answer.measures for answer in evidence.answers),
        *(drift.kl for drift in evidence.drift),
        *(passage.logprob for passage in evidence.passages),
    ]
    assert {frozenset(each) for each in by_role} == {frozenset(MODEL_ROLES)}


def test_answers_are_greedy_and_what_the_base_writes_is_drawn_with_fixed_seeds() -> None:
    engine, _ = played()
    greedy = [r for r in engine.requests if r.sampling.temperature == 0]
    drawn = [r for r in engine.requests if r.sampling.temperature == 1]
    assert [len([r for r in greedy if r.adapter == a]) for a in ("new", None)] == [24, 24]
    assert {r.adapter for r in drawn} == {None}
    assert [r.sampling.seed for r in drawn] == list(range(21))
    assert {(r.sampling.top_p, r.sampling.top_k, r.sampling.min_p) for r in drawn} == {(1, 0, 0)}


def test_an_evaluation_holds_neither_words_nor_names() -> None:
    _, evidence = played()
    document = evidence.as_dict()
    text = json.dumps(document)
    for word in ("And the sea?", "Marked?", "Hello", "Wide", "ann", "Just a word"):
        assert word not in text
    assert [pair["conversation"] for pair in document["pairs"]] == [0, 1, 2]


def test_a_judge_is_asked_in_both_orders_and_believed_where_they_agree() -> None:
    """It prefers the longer answer, but of Chinese ones always the first that it is shown.

    Of the eight Chinese prompts one asks for code, which has no Chinese letter in it. Three prompts
    ask for a thought: the incumbent's answer after it is "ten", and the judge sees no thought.
    """
    asked = []

    def rule(a: str, b: str) -> Any:
        asked.append(a)
        return "A" if not (a + b).isascii() or len(a) > len(b) else "B"

    _, evidence = played(ScriptedJudge(rule))
    assert len(asked) == 48
    assert evidence.opinions is not None
    assert (evidence.opinions.wins, evidence.opinions.ties, evidence.opinions.losses) == (3, 7, 14)


def test_without_a_judge_there_are_no_opinions() -> None:
    assert played()[1].opinions is None


def test_a_reward_model_scores_greedy_answers_and_the_best_of_several() -> None:
    """A reward is the answer's length, and one more for an answer that came to its end."""
    base, adapter = Voice(lambda prompt: "Four."), Voice(lambda prompt: "Seven..")
    engine = ScriptedEngine({None: base, "adapter": adapter})
    found = evaluate(engine, [], candidate="adapter", incumbent=None, scorer=LengthScorer())
    assert len(found.rewards) == len(found.answers) == 24
    for rewarded in found.rewards:
        assert rewarded.greedy == {"candidate": 8, "incumbent": 6, "base": 6}
        assert rewarded.best == rewarded.drawn == rewarded.greedy
    of_adapter = [r for r in engine.requests if r.sampling.temperature == 1 and r.adapter]
    assert [r.sampling.seed for r in of_adapter] == [0, 1, 2, 3] * 24
    of_base = [r for r in engine.requests if r.sampling.temperature == 1 and not r.adapter]
    assert len(of_base) == 24 * 4 + 21  # in two roles, and asked once; 21 texts for the drift
    models = summarise(found)["models"]
    assert models["candidate"]["reward_greedy"] == models["candidate"]["reward_best_of_4"] == 8
    assert models["base"]["reward_drawn"] == 6


def test_without_a_reward_model_there_are_no_rewards() -> None:
    engine = ScriptedEngine({None: Voice(sensible)})
    found = evaluate(engine, [], candidate=None, incumbent=None)
    assert found.rewards == ()
    assert summarise(found)["models"]["base"]["reward_greedy"] is None
