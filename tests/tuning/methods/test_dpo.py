"""Each DPO loss at its first step, from the papers' formulas on plain forward passes.

The policy starts from an adapter and the reference is the base model, so that no margin is 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import logsigmoid

from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from engine.storage import folder_of
from tests.helpers import make_bundle
from tests.support.losses import ROWS, chosen_nll, plain_model, sums, train, whole_batch
from tuning.dataset import tokenize
from tuning.methods import dpo_trainer
from tuning.rows import TokenizedPairs

SIDES = ("chosen_ids", "rejected_ids")
BETA = 0.7


@pytest.fixture(scope="module")
def pairs(renderer: Renderer) -> TokenizedPairs:
    return tokenize(renderer, ROWS, 512)


@pytest.fixture
def model(tiny_base: BaseModel, tmp_path: Path) -> PeftModel:
    root = tmp_path / "bundles"
    folder = folder_of(root, make_bundle(root, tiny_base))
    return PeftModel.from_pretrained(plain_model(tiny_base), str(folder), is_trainable=True)


@pytest.fixture
def ratios(model: PeftModel, pairs: TokenizedPairs, tiny_base: BaseModel) -> list[Tensor]:
    """log pi(completion) - log pi_ref(completion) of chosen and rejected, (pairs,) each."""
    base = plain_model(tiny_base)
    found = [sums(model, pairs, side) - sums(base, pairs, side) for side in SIDES]
    assert (found[0] - found[1]).abs().min() > 0.01  # the margins tell the losses apart
    return found


def lengths(pairs: TokenizedPairs, side: str) -> Tensor:
    return torch.tensor([len(row[side]) for row in pairs.rows])


def first_loss(
    model: PeftModel, pairs: TokenizedPairs, folder: Path, tokenizer: Any, **changed: Any
) -> float:
    options = {"beta": BETA, "sft_weight": 0.0, "reference": "base"} | changed
    (loss,) = train("dpo", model, pairs, whole_batch(1, **options), folder, tokenizer).losses
    return loss


def test_sigmoid(
    model: PeftModel, pairs: TokenizedPairs, ratios: list[Tensor], tmp_path: Path, tokenizer: Any
) -> None:
    """Rafailov et al. 2023, eq. 7."""
    expected = -logsigmoid(BETA * (ratios[0] - ratios[1])).mean()
    found = first_loss(model, pairs, tmp_path, tokenizer)
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_robust(
    model: PeftModel, pairs: TokenizedPairs, ratios: list[Tensor], tmp_path: Path, tokenizer: Any
) -> None:
    """Chowdhury et al. 2024: the loss of the pair and of the swapped pair, made unbiased."""
    margin, e = BETA * (ratios[0] - ratios[1]), 0.2
    expected = -((1 - e) * logsigmoid(margin) - e * logsigmoid(-margin)) / (1 - 2 * e)
    found = first_loss(model, pairs, tmp_path, tokenizer, loss="robust", flip_rate=e)
    assert found == pytest.approx(float(expected.mean()), rel=1e-4)


def test_ipo(
    model: PeftModel, pairs: TokenizedPairs, ratios: list[Tensor], tmp_path: Path, tokenizer: Any
) -> None:
    """Azar et al. 2023, eq. 17, on ratios per token: the squared distance to 1 / (2 tau)."""
    chosen, rejected = (r / lengths(pairs, s) for r, s in zip(ratios, SIDES, strict=True))
    expected = (chosen - rejected - 1 / (2 * BETA)).square().mean()
    found = first_loss(model, pairs, tmp_path, tokenizer, loss="ipo")
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_length_normalised(
    model: PeftModel, pairs: TokenizedPairs, ratios: list[Tensor], tmp_path: Path, tokenizer: Any
) -> None:
    """Lambert et al. 2024: eq. 7 of Rafailov et al. on ratios per token."""
    chosen, rejected = (r / lengths(pairs, s) for r, s in zip(ratios, SIDES, strict=True))
    expected = -logsigmoid(5.0 * (chosen - rejected)).mean()
    found = first_loss(model, pairs, tmp_path, tokenizer, loss="length-normalised", beta=5.0)
    assert found == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.integration
def test_each_loss_may_have_the_sft_term(
    model: PeftModel, pairs: TokenizedPairs, ratios: list[Tensor], tmp_path: Path, tokenizer: Any
) -> None:
    """Pang et al. 2024, eq. 2."""
    chosen, rejected = (r / lengths(pairs, s) for r, s in zip(ratios, SIDES, strict=True))
    expected = float((chosen - rejected - 1 / (2 * BETA)).square().mean())
    expected += 0.5 * chosen_nll(model, pairs)
    found = first_loss(model, pairs, tmp_path, tokenizer, loss="ipo", sft_weight=0.5)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.integration
def test_the_base_is_the_reference_for_trls_own_trainer_too(
    model: PeftModel,
    pairs: TokenizedPairs,
    ratios: list[Tensor],
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a model cannot be packed."""
    monkeypatch.setattr(dpo_trainer, "packing_blocker", lambda _: "to see the other trainer")
    expected = -logsigmoid(BETA * (ratios[0] - ratios[1])).mean()
    found = first_loss(model, pairs, tmp_path, tokenizer)
    assert found == pytest.approx(float(expected), rel=1e-4)
