"""KTO's loss, from the paper's formula on plain forward passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model

from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from feedback_store.examples.types import Origin, Side, Unpaired
from tests.support.losses import Recorder, plain_model, token_logprobs
from tests.support.packed_training import Watch, assert_same, tuned_model, watched
from tuning.dataset import tokenize_answers
from tuning.methods import kto_trainer
from tuning.methods.kto import KtoRecipe
from tuning.methods.kto_trainer import (
    PackedKTOTrainer,
    RenderedKTOTrainer,
    make_kto_trainer,
    with_mismatched,
)
from tuning.methods.stage import Stage
from tuning.recipe import Recipe

pytestmark = pytest.mark.integration

BETA, UP, DOWN = 0.5, 1.5, 0.75
TEXTS = {"Hello there!": True, "No.": False, "Flour and water.": True, "I will not say.": False}


def judged(text: str, label: bool) -> Unpaired:
    side = Side(text, "", True, text, "sha256:base", None)
    origin = Origin(text, "hash", (1,), ("ann",))
    return Unpaired(text, (Message("user", f"Q {text}"),), side, label, "vote", origin)


@pytest.fixture(scope="module")
def rows(renderer: Renderer) -> Dataset:
    examples = [judged(text, label) for text, label in TEXTS.items()]
    return Dataset.from_list(list(tokenize_answers(renderer, examples, 512).rows))


@pytest.fixture
def model(tiny_base: BaseModel) -> PeftModel:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(plain_model(tiny_base), config)


def trained(
    model: PeftModel, rows: Dataset, folder: Path, tokenizer: Any, **changed: Any
) -> Recorder:
    recorder = Recorder()
    values = KtoRecipe(
        epochs=5,
        batch_answers=len(TEXTS),
        learning_rate=0.01,
        beta=BETA,
        desirable_weight=UP,
        undesirable_weight=DOWN,
    )
    recipe = Recipe(kto=replace(values, **changed))
    torch.manual_seed(0)
    recipe.kto.train(model, rows, Stage("kto", folder, 0, tokenizer, recorder))
    return recorder


def test_at_first_policy_and_reference_agree_and_each_answer_costs_half_its_weight(
    model: PeftModel, rows: Dataset, tmp_path: Path, tokenizer: Any
) -> None:
    found = trained(model, rows, tmp_path, tokenizer)
    assert found.losses[0] == pytest.approx((UP + DOWN) / 2 * 0.5, rel=1e-5)


def test_a_later_loss_is_that_of_the_paper(
    model: PeftModel, rows: Dataset, tiny_base: BaseModel, tmp_path: Path, tokenizer: Any
) -> None:
    """Ethayarajh et al. 2024, eq. 7, on the weights that step 5 began with.

    z0, the drift from the reference, comes from the same completions after others' prompts.
    """
    found = trained(model, rows, tmp_path, tokenizer)
    base = plain_model(tiny_base)
    for name, value in found.weights[3].items():
        model.get_parameter(name).data.copy_(value)
    model.eval()

    def ratio(row: dict[str, Any], column: str) -> float:
        policy, reference = (
            token_logprobs(m, row["prompt_ids"], row[column]).sum() for m in (model, base)
        )
        return float(policy - reference)

    seen = list(with_mismatched(rows, len(TEXTS), 0))
    z0 = max(0.0, sum(ratio(row, "KL_completion_ids") for row in seen) / len(seen))
    costs = []
    for row in seen:
        gain = BETA * (ratio(row, "completion_ids") - z0)
        sign, weight = (1, UP) if row["label"] else (-1, DOWN)
        costs.append(weight * (1 - float(torch.sigmoid(torch.tensor(sign * gain)))))
    expected = sum(costs) / len(costs)
    assert expected < 0.95 * found.losses[0]  # it has learned which answers are good
    assert found.losses[4] == pytest.approx(expected, rel=1e-3)


def test_a_step_has_the_loss_logs_and_gradients_of_trls(
    rows: Dataset,
    tiny_base: BaseModel,
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With an adapter whose reference liked each answer less, so that no ratio is 0."""
    recipe = Recipe(
        kto=KtoRecipe(
            epochs=1, batch_answers=3, beta=BETA, desirable_weight=UP, undesirable_weight=DOWN
        )
    )
    stage = Stage("kto", tmp_path, 0, tokenizer, Watch(), biased)
    ours = make_kto_trainer(tuned_model(tiny_base.folder), rows, recipe.kto, stage)
    assert isinstance(ours, PackedKTOTrainer)
    monkeypatch.setattr(kto_trainer, "packing_blocker", lambda _: "to compare")
    monkeypatch.setattr(kto_trainer, "RenderedKTOTrainer", PlainKTOTrainer)
    plain = replace(stage, callback=Watch(), folder=tmp_path / "trl")
    trl = make_kto_trainer(tuned_model(tiny_base.folder), rows, recipe.kto, plain)
    assert isinstance(trl, PlainKTOTrainer)
    mine, theirs = watched(ours), watched(trl)
    assert theirs.logs["kl"] > 0
    assert_same(mine, theirs)


def biased(rows: Any, compute: Any) -> list[tuple[float, float]]:
    return [(one - 1.3, two - 0.4) for one, two in compute(rows)]


class PlainKTOTrainer(RenderedKTOTrainer):
    """trl's own trainer, with the same reference made by its own pass."""

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any) -> Dataset:
        found = super()._precompute_ref_logps(dataset, *args)
        for column, bias in (("ref_logps", 1.3), ("ref_KL_logps", 0.4)):
            values = [value - bias for value in found[column]]
            found = found.remove_columns(column).add_column(column, values)
        return found


def test_each_answer_is_matched_with_another_of_its_step(rows: Dataset) -> None:
    seen = list(with_mismatched(rows, 2, seed=0))
    assert sorted(map(str, (r["completion_ids"] for r in seen))) == sorted(
        map(str, rows["completion_ids"])
    )
    for one, two in (seen[:2], seen[2:]):
        assert one["KL_completion_ids"] == two["completion_ids"]
        assert two["KL_completion_ids"] == one["completion_ids"]


def test_a_last_answer_alone_in_its_step_borrows_another(rows: Dataset) -> None:
    seen = list(with_mismatched(rows, 3, seed=0))
    assert seen[3]["KL_completion_ids"] == seen[0]["completion_ids"]
    assert seen[3]["KL_completion_ids"] != seen[3]["completion_ids"]


def test_the_order_is_the_seeds(rows: Dataset) -> None:
    orders = {str([r["completion_ids"] for r in with_mismatched(rows, 4, s)]) for s in range(6)}
    assert len(orders) > 1
    assert list(with_mismatched(rows, 4, 3)) == list(with_mismatched(rows, 4, 3))
