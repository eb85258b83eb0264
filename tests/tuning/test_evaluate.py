"""The gate's evidence, against plain forward passes."""

from __future__ import annotations

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
from tests.tuning.conftest import row
from tuning.evaluate import evaluate

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


def test_each_side_is_scored_by_the_mean_of_its_tokens(
    engine: ReferenceEngine, renderer: Renderer, tokenizer: Any, tiny_base: BaseModel
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    end = [tokenizer.eos_token_id]
    for scores, pair in zip(
        evaluate(engine, ROWS, candidate=None, incumbent=None), ROWS, strict=True
    ):
        prompt = list(renderer.prompt(pair.prompt))
        chosen = tokenizer.encode(pair.chosen.full_text, add_special_tokens=False) + end
        rejected = tokenizer.encode(pair.rejected.full_text, add_special_tokens=False)
        rejected += end if pair.rejected.complete else []
        expected = pytest.approx(mean_logprob(model, prompt, chosen), rel=1e-4)
        assert scores.candidate_chosen == scores.incumbent_chosen == expected
        expected = pytest.approx(mean_logprob(model, prompt, rejected), rel=1e-4)
        assert scores.candidate_rejected == scores.incumbent_rejected == expected
        assert (scores.chosen_chars, scores.rejected_chars) == (
            len(pair.chosen.full_text),
            len(pair.rejected.full_text),
        )
        assert scores.conversation_id == pair.origin.conversation_id


def test_candidate_and_incumbent_are_not_mixed_up(
    engine: ReferenceEngine, tiny_base: BaseModel, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path, tiny_base)
    engine.load_adapter(bundle, tmp_path / bundle.removeprefix("sha256:"))
    base = evaluate(engine, ROWS, candidate=None, incumbent=None)
    one = evaluate(engine, ROWS, candidate=bundle, incumbent=None)
    other = evaluate(engine, ROWS, candidate=None, incumbent=bundle)
    for plain, new, old in zip(base, one, other, strict=True):
        assert new.incumbent_chosen == old.candidate_chosen == pytest.approx(plain.candidate_chosen)
        assert new.candidate_chosen == old.incumbent_chosen != pytest.approx(plain.candidate_chosen)
        assert new.candidate_rejected == old.incumbent_rejected
