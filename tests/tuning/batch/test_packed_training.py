"""Packed training beside trl's own trainers on the same rows: same losses, logs, gradients."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from engine.errors import EngineFailure
from engine.models.catalogue import BaseModel, resolve
from tests.support.packed_training import (
    BUDGET_TOKENS,
    Rows,
    Watch,
    assert_same,
    for_sft,
    made_up_rows,
    tuned_model,
    watched,
)
from tuning.batch.collate import Packer, prompt_of_pair
from tuning.batch.forward import accept_layouts, packing_blocker
from tuning.batch.reference import pair_log_probs
from tuning.jobs.events import JobEvent
from tuning.kernels import PORTABLE
from tuning.kernels.native import NativeTuningKernels
from tuning.methods import dpo_trainer, sft_trainer
from tuning.methods.dpo import DpoRecipe
from tuning.methods.dpo_trainer import PackedDPOTrainer, make_dpo_trainer
from tuning.methods.sft import SftRecipe
from tuning.methods.sft_trainer import PackedSFTTrainer, make_sft_trainer
from tuning.methods.stage import Stage
from tuning.recipe import Recipe
from tuning.step_reporter import StepReporter

pytestmark = pytest.mark.integration

RECIPE = Recipe(
    sft=SftRecipe(epochs=1, batch_pairs=4),
    dpo=DpoRecipe(epochs=1, batch_pairs=4, beta=0.5, sft_weight=0.7),
)


def biased_references(rows: Any, compute: Any) -> list[tuple[float, float]]:
    """As if the reference had liked each chosen answer less, so that no margin is 0."""
    return [(c - 1.3 + n, r) for n, (c, r) in enumerate(compute(rows))]


class PlainDPOTrainer(dpo_trainer.RenderedDPOTrainer):
    """trl's own trainer, with the same reference made by its own pass."""

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any) -> Dataset:
        found = super()._precompute_ref_logps(dataset, *args)
        values = [c - 1.3 + n for n, c in enumerate(found["ref_chosen_logps"])]
        return found.remove_columns("ref_chosen_logps").add_column("ref_chosen_logps", values)


@pytest.fixture
def stage(tmp_path: Path, tiny_base: BaseModel, native: NativeTuningKernels) -> Stage:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.folder)
    return Stage("stage", tmp_path / "stage", 0, tokenizer, Watch(), biased_references, native)


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a batch takes several."""
    for module in (dpo_trainer, sft_trainer):
        monkeypatch.setattr(module, "default_budget_tokens", lambda: BUDGET_TOKENS)


def assert_dpo_is_trls(
    folder: Path, rows: Rows, stage: Stage, monkeypatch: pytest.MonkeyPatch, recipe: Recipe = RECIPE
) -> None:
    ours = make_dpo_trainer(tuned_model(folder), Dataset.from_list(rows), recipe.dpo, stage)
    assert isinstance(ours, PackedDPOTrainer)
    monkeypatch.setattr(dpo_trainer, "packing_blocker", lambda _: "to compare")
    monkeypatch.setattr(dpo_trainer, "RenderedDPOTrainer", PlainDPOTrainer)
    plain = replace(stage, callback=Watch())
    trl = make_dpo_trainer(tuned_model(folder), Dataset.from_list(rows), recipe.dpo, plain)
    assert isinstance(trl, PlainDPOTrainer)
    assert_same(watched(ours), watched(trl))


def test_a_dpo_step_has_the_loss_logs_and_gradients_of_trls(
    tiny_base: BaseModel, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = made_up_rows(4)
    assert sum(prompt_of_pair(row).tokens for row in rows) > 2 * BUDGET_TOKENS  # several packs
    assert_dpo_is_trls(tiny_base.folder, rows, stage, monkeypatch)


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": "ipo"},
        {"loss": "robust", "flip_rate": 0.2},
        {"loss": "length-normalised", "beta": 5.0},
    ],
    ids=lambda changed: str(changed["loss"]),
)
def test_so_has_one_of_each_other_loss(
    changed: dict[str, Any], tiny_base: BaseModel, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, dpo=replace(RECIPE.dpo, **changed))
    assert_dpo_is_trls(tiny_base.folder, made_up_rows(4), stage, monkeypatch, recipe)


def test_so_has_one_whose_reference_is_the_base_model(
    tiny_base: BaseModel, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, dpo=replace(RECIPE.dpo, reference="base"))
    assert_dpo_is_trls(tiny_base.folder, made_up_rows(4), stage, monkeypatch, recipe)


@pytest.mark.slow
@pytest.mark.skipif("BURNISH_MODEL_CACHE" not in os.environ, reason="needs a model cache")
def test_on_the_embedded_model_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve("embedded", Path(os.environ["BURNISH_MODEL_CACHE"]).expanduser()).folder
    real = replace(stage, tokenizer=AutoTokenizer.from_pretrained(folder))
    assert_dpo_is_trls(folder, made_up_rows(4), real, monkeypatch)


def test_an_sft_step_has_the_loss_logs_and_gradients_of_trls(
    tiny_base: BaseModel, stage: Stage
) -> None:
    rows = made_up_rows(4)
    ours = make_sft_trainer(tuned_model(tiny_base.folder), for_sft(rows), RECIPE.sft, stage)
    assert isinstance(ours, PackedSFTTrainer)
    config = SFTConfig(
        **stage.arguments(epochs=1, learning_rate=2e-4, batch=4),
        max_length=None,
        completion_only_loss=True,
    )
    trl = SFTTrainer(
        model=tuned_model(tiny_base.folder),
        args=config,
        train_dataset=for_sft(rows),
        processing_class=stage.tokenizer,
        callbacks=[Watch()],
    )
    assert_same(watched(ours), watched(trl))


@pytest.fixture
def model(tiny_base: BaseModel) -> PeftModel:
    """One that takes layouts."""
    model = tuned_model(tiny_base.folder).eval()
    accept_layouts(model, PORTABLE)
    return model


def log_probs(model: PeftModel, rows: Rows, budget_tokens: int) -> list[tuple[float, float]]:
    return pair_log_probs(model, Packer(collate, prompt_of_pair, budget_tokens), rows)


def collate(rows: Any) -> dict[str, Tensor]:
    """As wide and as high as trl's, which is all that is read of it here."""
    longest = max(
        len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows
    )
    return {"input_ids": torch.zeros(2 * len(rows), longest, dtype=torch.long)}


def test_a_rows_log_probabilities_do_not_depend_on_its_neighbours_or_their_order(
    model: PeftModel,
) -> None:
    rows = made_up_rows(6)
    alone = [log_probs(model, [row], 1)[0] for row in rows]
    together = log_probs(model, rows, 10_000)
    backwards = log_probs(model, rows[::-1], 100)[::-1]
    for one, two, three in zip(alone, together, backwards, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
        assert three == pytest.approx(one, rel=1e-5)


def test_they_are_those_of_one_plain_pass_a_completion(
    model: PeftModel, tiny_base: BaseModel
) -> None:
    rows = made_up_rows(3)
    plain = tuned_model(tiny_base.folder).eval()
    for row, found in zip(rows, log_probs(model, rows, 10_000), strict=True):
        for side, value in zip(("chosen_ids", "rejected_ids"), found, strict=True):
            ids = torch.tensor([row["prompt_ids"] + row[side]])
            with torch.no_grad():
                logits = plain(input_ids=ids).logits[0, len(row["prompt_ids"]) - 1 : -1]
            own = logits.log_softmax(-1).gather(1, torch.tensor(row[side])[:, None])
            assert value == pytest.approx(float(own.sum()), rel=1e-5)


def test_what_cannot_be_packed_says_why(tiny_base: BaseModel) -> None:
    model = tuned_model(tiny_base.folder)
    assert packing_blocker(model) is None
    model.config.sliding_window = 8
    assert packing_blocker(model) == "not every layer has full attention"


def test_an_adapter_that_is_not_plain_lora_is_trained_as_peft_would(
    tiny_base: BaseModel, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DoRA: its layers are left alone."""
    monkeypatch.setattr(
        f"{__name__}.tuned_model", lambda folder, make=tuned_model: make(folder, use_dora=True)
    )
    assert_dpo_is_trls(tiny_base.folder, made_up_rows(4), stage, monkeypatch)


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_loss_that_is_not_a_number_stops_the_run(
    method: str, tiny_base: BaseModel, stage: Stage
) -> None:
    broken = tuned_model(tiny_base.folder)
    next(p for n, p in broken.named_parameters() if "lora_B" in n).data.fill_(float("nan"))
    events: list[JobEvent] = []
    stage = replace(stage, callback=StepReporter(method, events.append))
    rows = made_up_rows(4)
    with pytest.raises(EngineFailure, match="the loss is nan at step 1"):
        if method == "dpo":
            make_dpo_trainer(broken, Dataset.from_list(rows), RECIPE.dpo, stage).train()
        else:
            make_sft_trainer(broken, for_sft(rows), RECIPE.sft, stage).train()
    assert events == []
