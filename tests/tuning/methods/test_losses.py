"""The losses that training reports, against the papers' formulas on plain forward passes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import logsigmoid

from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from tests.helpers import make_bundle
from tests.support.losses import ROWS, chosen_nll, plain_model, sums, train, whole_batch
from tuning.dataset import tokenize
from tuning.rows import TokenizedPairs


@pytest.fixture(scope="module")
def pairs(renderer: Renderer) -> TokenizedPairs:
    return tokenize(renderer, ROWS, 512)


@pytest.fixture
def model(tiny_base: BaseModel) -> PeftModel:
    """The tiny model with a fresh adapter, which changes nothing yet."""
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(plain_model(tiny_base), config)


@pytest.mark.integration
def test_the_first_dpo_loss_is_log_2_plus_the_likelihood_of_the_chosen_answers(
    model: PeftModel, pairs: TokenizedPairs, tiny_base: BaseModel, tmp_path: Path, tokenizer: Any
) -> None:
    """Policy and reference are the same at first, so each pair's preference term is log 2."""
    found = train("dpo", model, pairs, whole_batch(1, sft_weight=0.5), tmp_path, tokenizer)
    expected = math.log(2) + 0.5 * chosen_nll(plain_model(tiny_base), pairs)
    assert found.losses == [pytest.approx(expected, rel=1e-4)]


def test_without_the_sft_term_the_first_dpo_loss_is_log_2(
    model: PeftModel, pairs: TokenizedPairs, tmp_path: Path, tokenizer: Any
) -> None:
    found = train("dpo", model, pairs, whole_batch(1, sft_weight=0.0), tmp_path, tokenizer)
    assert found.losses == [pytest.approx(math.log(2), abs=1e-5)]


def test_the_reference_is_the_adapter_that_came_in_not_the_base_model(
    pairs: TokenizedPairs, tiny_base: BaseModel, tmp_path: Path, tokenizer: Any
) -> None:
    folder = (
        tmp_path / "bundles" / make_bundle(tmp_path / "bundles", tiny_base).removeprefix("sha256:")
    )

    def with_adapter() -> PeftModel:
        return PeftModel.from_pretrained(plain_model(tiny_base), str(folder), is_trainable=True)

    nll = chosen_nll(with_adapter(), pairs)
    assert nll != pytest.approx(chosen_nll(plain_model(tiny_base), pairs), rel=0.01)
    found = train("dpo", with_adapter(), pairs, whole_batch(1), tmp_path / "stage", tokenizer)
    assert found.losses == [pytest.approx(math.log(2) + nll, rel=1e-4)]


def test_a_later_dpo_loss_is_that_of_the_paper(
    model: PeftModel, pairs: TokenizedPairs, tiny_base: BaseModel, tmp_path: Path, tokenizer: Any
) -> None:
    """Rafailov et al. 2023, eq. 7, on the weights that step 5 began with, plus the SFT term."""
    beta = 0.7
    recipe = whole_batch(5, beta=beta, learning_rate=0.01)
    found = train("dpo", model, pairs, recipe, tmp_path, tokenizer)
    policy, reference = model, plain_model(tiny_base)
    for name, value in found.weights[3].items():
        policy.get_parameter(name).data.copy_(value)
    policy.eval()
    margin = (sums(policy, pairs, "chosen_ids") - sums(reference, pairs, "chosen_ids")) - (
        sums(policy, pairs, "rejected_ids") - sums(reference, pairs, "rejected_ids")
    )
    preference = float(-logsigmoid(beta * margin).mean())
    assert preference < 0.9 * math.log(2)  # it has learned which side is which
    assert found.losses[4] == pytest.approx(preference + chosen_nll(policy, pairs), rel=1e-3)


def test_the_first_sft_loss_is_the_likelihood_of_the_chosen_answers_alone(
    model: PeftModel, pairs: TokenizedPairs, tiny_base: BaseModel, tmp_path: Path, tokenizer: Any
) -> None:
    found = train("sft", model, pairs, whole_batch(1), tmp_path, tokenizer)
    assert found.losses == [pytest.approx(chosen_nll(plain_model(tiny_base), pairs), rel=1e-4)]


@pytest.mark.integration
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_every_step_after_the_first_moves_the_adapter_and_nothing_else(
    method: str, model: PeftModel, pairs: TokenizedPairs, tmp_path: Path, tokenizer: Any
) -> None:
    """The first step of the warm-up has a learning rate of 0."""
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if "lora" not in n}
    found = train(method, model, pairs, whole_batch(4), tmp_path, tokenizer)
    for before, after in zip(found.weights[:-1], found.weights[1:], strict=True):
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        assert any("lora_A" in name for name in moved) or any("lora_B" in name for name in moved)
    assert found.losses[3] < found.losses[1]
    for name, value in frozen.items():
        assert torch.equal(model.get_parameter(name), value), name
