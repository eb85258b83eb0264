"""Distance from the base: the estimator against the exact value, and real models against it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from tests.helpers import make_bundle
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.evaluation.answers import load_prompts
from tuning.evaluation.generic import k3, measure_drift, perplexity, score_passages
from tuning.evaluation.roles import adapters_of

SHORT = load_prompts()[:3]


@pytest.fixture(scope="module")
def engine(tiny_base: BaseModel) -> Iterator[ReferenceEngine]:
    engine = ReferenceEngine(tiny_base, dtype=torch.float32)
    yield engine
    engine.close()


def test_the_estimator_is_the_divergence_on_average() -> None:
    """Over all tokens that the base may draw, each as often as it would draw it."""
    base, model = (0.5, 0.3, 0.2), (0.2, 0.2, 0.6)
    exact = sum(p * math.log(p / q) for p, q in zip(base, model, strict=True))
    drawn = [0] * 5 + [1] * 3 + [2] * 2
    estimate = k3([math.log(model[token]) for token in drawn], [math.log(base[t]) for t in drawn])
    assert estimate == pytest.approx(exact)


def test_a_single_tokens_estimate_is_the_formula_by_hand() -> None:
    """r = 0.2 / 0.5: r - 1 - log r = 0.4 - 1 + 0.9163."""
    assert k3([math.log(0.2)], [math.log(0.5)]) == pytest.approx(0.3163, abs=1e-4)
    assert k3([-1.0, -2.0], [-1.0, -2.0]) == 0.0
    assert k3([-0.5], [-1.0]) > 0


def test_the_base_is_no_distance_from_itself_and_an_adapter_is(
    engine: ReferenceEngine, tiny_base: BaseModel, tmp_path: Path
) -> None:
    near, far = (make_bundle(tmp_path, tiny_base, seed=1, scale=scale) for scale in (0.02, 0.3))
    for bundle in (near, far):
        engine.load_adapter(bundle, tmp_path / bundle.removeprefix("sha256:"))
    for drift in measure_drift(engine, adapters_of(far, near), SHORT):
        assert drift.kl["base"] == 0.0
        assert 0 < drift.kl["incumbent"] < drift.kl["candidate"]


def test_the_same_engine_finds_the_same_distance_twice(engine: ReferenceEngine) -> None:
    found = [measure_drift(engine, adapters_of(None, None), SHORT) for _ in range(2)]
    assert [drift.tokens for drift in found[0]] == [drift.tokens for drift in found[1]]


def test_a_text_of_which_the_base_wrote_nothing_is_left_out() -> None:
    engine = ScriptedEngine({None: Voice(lambda prompt: "" if "Portugal" in prompt else "Fine.")})
    drift = measure_drift(engine, adapters_of(None, None), SHORT)
    assert [each.prompt_id for each in drift] == ["en-boil", "en-thanks"]


def test_perplexity_is_e_to_the_mean_loss_of_a_token() -> None:
    """Every token has log-probability -1 under the base and -2 under the candidate."""
    engine = ScriptedEngine({None: Voice(sensible), "new": Voice(sensible, lambda _: -2.0)})
    passages = score_passages(engine, adapters_of("new", None))
    assert perplexity(passages, "base") == pytest.approx(math.e)
    assert perplexity(passages, "candidate") == pytest.approx(math.e**2)
    assert sum(request.complete for request in engine.scored) == 2 * len(passages)
