"""Virtual tokens are trained by trl's losses, resumed, carried from stage to stage and served."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from engine.adapters.bundle import open_bundle
from engine.errors import InvalidInput
from engine.fast import FastEngine
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from engine.request import ScoreRequest
from engine.storage import folder_of
from feedback_store.snapshots.snapshot import open_snapshot
from tests.support.datasets import dataset_of
from tests.support.losses import ROWS, Recorder, plain_model
from tests.support.pairs import snapshot_of
from tuning.batch.forward import packing_blocker
from tuning.dataset import tokenize
from tuning.methods.base import SoftPromptKind
from tuning.methods.dpo import DpoRecipe
from tuning.methods.kto import KtoRecipe
from tuning.methods.orpo import OrpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.methods.stage import Stage
from tuning.policy import load_policy
from tuning.recipe import Recipe, read_recipe, recipe_from_dict
from tuning.recipe_sections import AdapterRecipe
from tuning.rows import TokenizedPairs
from tuning.soft_prompt import SoftPromptModel, soft_prompt_model
from tuning.train import run
from tuning.training_run import TrainingRun

pytestmark = pytest.mark.integration

TOKENS = 5
RATE = 0.03
BATCH = len(ROWS)  # all rows in one batch, so that a step is an epoch and its loss is known
RECIPE = Recipe(
    sft=SftRecipe(epochs=3, batch_pairs=BATCH, learning_rate=RATE),
    dpo=DpoRecipe(epochs=3, batch_pairs=BATCH, learning_rate=RATE),
    kto=KtoRecipe(
        epochs=3,
        batch_answers=2 * BATCH,
        learning_rate=RATE,
        desirable_weight=1.0,
        undesirable_weight=1.0,
    ),
    orpo=OrpoRecipe(epochs=3, batch_pairs=BATCH, learning_rate=RATE, odds_weight=0.5),
)
Fresh = Callable[[], SoftPromptModel]


@pytest.fixture(params=["prefix", "prompt", "p-tuning"])
def kind(request: pytest.FixtureRequest) -> SoftPromptKind:
    asked: SoftPromptKind = request.param
    return asked


@pytest.fixture(scope="module")
def pairs(renderer: Renderer) -> TokenizedPairs:
    return tokenize(renderer, ROWS, 512)


@pytest.fixture
def fresh(tiny_base: BaseModel, kind: SoftPromptKind) -> Fresh:
    """Makes the same fresh soft prompt each time."""

    def make() -> SoftPromptModel:
        torch.manual_seed(0)
        return soft_prompt_model(plain_model(tiny_base), kind, TOKENS, None)

    return make


@pytest.fixture
def train(tmp_path: Path, tokenizer: Any) -> Callable[..., Recorder]:
    def train(
        method: str, model: PeftModel, rows: Dataset, recipe: Recipe = RECIPE, folder: str = "s"
    ) -> Recorder:
        recorder = Recorder()
        stage = Stage(folder, tmp_path / folder, 0, tokenizer, recorder)
        recipe.methods[method].train(model, rows, stage)
        return recorder

    return train


@torch.no_grad()
def logprobs(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    """Of each completion token, (completion,), by one unpadded pass; virtual tokens come first."""
    ids = torch.tensor([prompt + completion])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -ids.shape[1] :]
    predicted: Tensor = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return predicted[torch.arange(len(completion)), torch.tensor(completion)]


def side(model: Any, pairs: TokenizedPairs, name: str) -> list[Tensor]:
    return [logprobs(model, ids["prompt_ids"], ids[name]) for ids in pairs.rows]


def chosen_nll(model: Any, pairs: TokenizedPairs) -> float:
    return -float(torch.cat(side(model, pairs, "chosen_ids")).mean())


def margins(model: Any, pairs: TokenizedPairs) -> Tensor:
    """log pi(chosen) - log pi(rejected) of each pair."""
    chosen, rejected = (side(model, pairs, name) for name in ("chosen_ids", "rejected_ids"))
    return torch.stack([a.sum() - b.sum() for a, b in zip(chosen, rejected, strict=True)])


def virtual(model: SoftPromptModel) -> Tensor:
    embeddings: Tensor = model.get_prompt_embedding_to_save("default")
    return embeddings


def test_sft_reports_the_likelihood_behind_the_virtual_tokens_and_raises_it(
    fresh: Fresh, pairs: TokenizedPairs, train: Callable[..., Recorder]
) -> None:
    model = fresh()
    base = {name: p.detach().clone() for name, p in model.base_model.named_parameters()}
    expected, before = chosen_nll(model, pairs), virtual(model)
    losses = train("sft", model, dataset_of(RECIPE.sft, pairs)).losses
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[0] > losses[1] > losses[2] > chosen_nll(model, pairs)
    assert not torch.equal(virtual(model), before)
    for name, parameter in model.base_model.named_parameters():
        assert torch.equal(parameter, base[name]), name


def test_dpo_compares_with_the_virtual_tokens_it_began_with(
    fresh: Fresh, pairs: TokenizedPairs, train: Callable[..., Recorder]
) -> None:
    """At the start the policy is the reference: each pair costs log 2 (Rafailov et al., eq. 7)."""
    model = fresh()
    start, expected = margins(model, pairs), math.log(2) + chosen_nll(model, pairs)
    recorder = train("dpo", model, dataset_of(RECIPE.dpo, pairs))
    assert recorder.losses[0] == pytest.approx(expected, rel=1e-4)
    assert recorder.losses[-1] < recorder.losses[0]
    assert margins(model, pairs).mean() > start.mean()


def test_dpo_may_compare_with_the_base_model(
    fresh: Fresh, pairs: TokenizedPairs, train: Callable[..., Recorder], tiny_base: BaseModel
) -> None:
    model = fresh()
    gain = margins(model, pairs) - margins(plain_model(tiny_base), pairs)
    expected = -float(logsigmoid(0.1 * gain).mean())
    dpo = replace(RECIPE.dpo, reference="base", sft_weight=0.0)
    recorder = train("dpo", model, dataset_of(RECIPE.dpo, pairs), replace(RECIPE, dpo=dpo))
    assert recorder.losses[0] == pytest.approx(expected, rel=1e-4)


def test_kto_learns_from_lone_judgements(
    fresh: Fresh, pairs: TokenizedPairs, train: Callable[..., Recorder]
) -> None:
    """At the start no reward differs from the KL, so each answer costs 1 - sigmoid(0) = 1/2."""
    rows = Dataset.from_list(
        [
            {"prompt_ids": ids["prompt_ids"], "completion_ids": ids[name], "label": good}
            for ids in pairs.rows
            for name, good in (("chosen_ids", True), ("rejected_ids", False))
        ]
    )
    losses = train("kto", fresh(), rows).losses
    assert losses[0] == pytest.approx(0.5, abs=1e-5)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["prefix"], indirect=True)
def test_orpo_learns_a_prefix(
    fresh: Fresh, pairs: TokenizedPairs, train: Callable[..., Recorder]
) -> None:
    """Hong et al. 2024, eqs. 4, 6 and 7; trl's likelihood covers the prompt, too."""
    model = fresh()
    whole = [
        logprobs(model, ids["prompt_ids"][:1], ids["prompt_ids"][1:] + ids["chosen_ids"])
        for ids in pairs.rows
    ]
    means = [
        torch.stack([x.mean() for x in side(model, pairs, name)])
        for name in ("chosen_ids", "rejected_ids")
    ]
    odds = [mean - (1 - mean.exp()).log() for mean in means]
    expected = -torch.cat(whole).mean() - 0.5 * logsigmoid(odds[0] - odds[1]).mean()
    losses = train("orpo", model, dataset_of(RECIPE.dpo, pairs)).losses
    assert losses[0] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("prefix", "dpo"), ("prompt", "sft"), ("p-tuning", "dpo")],
    indirect=["kind"],
)
def test_a_run_that_was_killed_goes_on_from_its_checkpoint_to_the_same_numbers(
    fresh: Fresh, pairs: TokenizedPairs, train: Callable[..., Recorder], method: str, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, sft=replace(RECIPE.sft, epochs=13), dpo=replace(RECIPE.dpo, epochs=13))
    rows = dataset_of(RECIPE.methods[method], pairs)
    whole = fresh()
    train(method, whole, rows, recipe, "whole")
    checkpoint = "checkpoint-10"  # one is written each ten steps
    shutil.copytree(tmp_path / "whole" / checkpoint, tmp_path / "killed" / checkpoint)
    resumed = fresh()
    recorder = train(method, resumed, rows, recipe, "killed")
    assert len(recorder.losses) == 3
    torch.testing.assert_close(virtual(resumed), virtual(whole), rtol=0, atol=1e-6)


def test_a_stage_begins_where_the_one_before_ended(
    fresh: Fresh, kind: SoftPromptKind, tiny_base: BaseModel, tmp_path: Path
) -> None:
    model = fresh()
    with torch.no_grad():
        for parameter in model.prompt_encoder.parameters():
            parameter.add_(0.1)
    model.save_pretrained(str(tmp_path / "sft"), selected_adapters=["default"])
    recipe = AdapterRecipe(kind=kind, virtual_tokens=TOKENS)
    torch.manual_seed(1)
    following = load_policy(tiny_base, recipe, tmp_path / "sft")
    assert isinstance(following, SoftPromptModel)
    assert torch.equal(virtual(following), virtual(model))
    assert any(p.requires_grad for p in following.parameters())


def test_a_run_ends_with_a_bundle_that_an_engine_serves_as_peft_does(
    tiny_base: BaseModel, kernel_cache: Path, kind: SoftPromptKind, tmp_path: Path, tokenizer: Any
) -> None:
    recipe = Recipe(
        adapter=AdapterRecipe(kind=kind, virtual_tokens=TOKENS),
        sft=SftRecipe(epochs=1, learning_rate=RATE),
        dpo=DpoRecipe(epochs=1, learning_rate=RATE),
        max_sequence_tokens=200,
    )
    snapshot = open_snapshot(Home(tmp_path).snapshots, snapshot_of(tmp_path, 8))
    bundles = Home(tmp_path).bundles
    job = TrainingRun(tiny_base, snapshot, recipe, {}, tmp_path / "job", Home(tmp_path))
    digest = run(job, lambda event: None)
    bundle = open_bundle(bundles, digest, tiny_base)
    assert bundle.manifest["recipe"]["adapter"]["kind"] == kind
    assert "adapter_model.safetensors" in bundle.manifest["files"]
    peer = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32),
        folder_of(bundles, digest),
    ).eval()
    rendered = Renderer(tokenizer).pair((Message("user", "Say word 1."),), "Word 1.")
    expected = logprobs(peer, list(rendered.prompt_ids), list(rendered.completion_ids))
    engine = FastEngine(tiny_base, kernel_cache=kernel_cache, dtype=torch.float32)
    try:
        engine.load_adapter(digest, bundle.folder)
        request = ScoreRequest((Message("user", "Say word 1."),), "Word 1.", digest)
        found = engine.score([request])[0].token_logprobs
    finally:
        engine.close()
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_its_batches_are_not_packed_and_the_reason_is_said(fresh: Fresh) -> None:
    assert packing_blocker(fresh()) == "its adapter is made of virtual tokens"


class CheckpointingStage(Stage):
    """As a stage is on CUDA."""

    def arguments(self, **options: Any) -> dict[str, Any]:
        return {**Stage.arguments(self, **options), "gradient_checkpointing": True}


def test_checkpointed_gradients_do_not_lose_the_virtual_tokens(
    fresh: Fresh, pairs: TokenizedPairs, tmp_path: Path, tokenizer: Any
) -> None:
    """transformers drops the cache then, and a prefix with it, so that a prefix goes without."""
    model, recorder = fresh(), Recorder()
    expected = chosen_nll(model, pairs)
    stage = CheckpointingStage("s", tmp_path, 0, tokenizer, recorder)
    RECIPE.sft.train(model, dataset_of(RECIPE.sft, pairs), stage)
    assert recorder.losses[0] == pytest.approx(expected, rel=1e-4)
    assert recorder.losses[-1] < recorder.losses[0]
    checkpointed = model.base_model.is_gradient_checkpointing
    assert checkpointed == (model.active_peft_config.peft_type != "PREFIX_TUNING")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"adapter": {"kind": "soft"}}, "adapter.kind"),
        ({"adapter": {"virtual_tokens": 0}}, "virtual_tokens must lie in 1..512"),
        ({"adapter": {"virtual_tokens": 513}}, "virtual_tokens must lie in 1..512"),
        ({"adapter": {"kind": "prefix", "weight_decomposed": True}}, "need adapter.kind lora"),
        ({"adapter": {"kind": "prompt", "rank_stabilised": True}}, "need adapter.kind lora"),
        ({"adapter": {"kind": "prompt"}, "orpo": {"epochs": 1}}, "orpo.epochs needs adapter.kind"),
        ({"adapter": {"kind": "p-tuning"}, "orpo": {"epochs": 1}}, "orpo.epochs needs"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_trained_is_refused_by_its_key(
    values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        recipe_from_dict(values)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("prefix-tuning", "prefix"), ("prompt-tuning", "prompt"), ("p-tuning", "p-tuning")],
)
def test_each_kind_has_a_recipe_of_its_own(name: str, kind: str) -> None:
    recipe = read_recipe(name)
    assert recipe.adapter.kind == kind
    assert recipe.dpo.epochs == 0
