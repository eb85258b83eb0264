"""The reward model: its loss against the paper's formula, and what is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import logsigmoid
from transformers import AutoTokenizer, set_seed

from engine.errors import EngineFailure, InvalidInput
from engine.hardware import detect
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from engine.storage import folder_of
from tests.helpers import make_bundle
from tests.support.losses import Recorder
from tests.support.pairs import row
from tuning.dataset import tokenize
from tuning.methods import reward_model
from tuning.methods.reward import RewardRecipe
from tuning.methods.reward_model import (
    RewardModel,
    fresh_reward_model,
    heldout_accuracy,
    publish_reward,
    train_reward,
)
from tuning.methods.stage import Stage
from tuning.rows import TokenizedPairs

ROWS = [
    row("Say hello.", "Hello there, sailor!", "No."),
    row("What is bread?", "Flour, water, salt.", "I will not say what bread is made of."),
    row("And the sea?", "Wide.", "The sea is", rejected_complete=False),
]
RECIPE = RewardRecipe(epochs=1, batch_pairs=len(ROWS), learning_rate=0.01, rank=4, alpha=8)


@pytest.fixture(autouse=True, scope="module")
def _fp32() -> Iterator[None]:
    """The same numbers on each machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward_model, "detect", lambda: replace(detect(), dtype=torch.float32))
        yield


@pytest.fixture(scope="module")
def pairs(renderer: Renderer) -> TokenizedPairs:
    return tokenize(renderer, ROWS, 512)


@pytest.fixture
def model(tiny_base: BaseModel) -> PeftModel:
    set_seed(0)
    return fresh_reward_model(tiny_base, RECIPE)


@torch.no_grad()
def score_by_hand(model: PeftModel, ids: list[int]) -> float:
    """The head's row times the last token's hidden state, from one pass without padding."""
    inner = model.get_base_model()
    hidden = inner.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]  # (hidden size,)
    head = inner.score.modules_to_save["default"].weight  # (1, hidden size)
    return float(head[0].float() @ hidden.float())


def sides(row: dict[str, list[int]]) -> tuple[list[int], list[int]]:
    return row["prompt_ids"] + row["chosen_ids"], row["prompt_ids"] + row["rejected_ids"]


def train(
    model: PeftModel, pairs: TokenizedPairs, recipe: RewardRecipe, folder: Path, tokenizer: Any
) -> Recorder:
    recorder = Recorder()
    train_reward(model, pairs.rows, recipe, Stage("reward", folder, 0, tokenizer, recorder))
    return recorder


@pytest.mark.parametrize("padding", ["<|endoftext|>", "<|im_end|>"])
def test_the_first_loss_is_that_of_the_paper_also_where_the_end_token_pads(
    model: PeftModel, pairs: TokenizedPairs, tmp_path: Path, tiny_base: BaseModel, padding: str
) -> None:
    """Ouyang et al. 2022, eq. 1. Many checkpoints pad with the token that ends an answer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.folder, pad_token=padding)
    margins = torch.tensor(
        [
            score_by_hand(model, chosen) - score_by_hand(model, rejected)
            for chosen, rejected in map(sides, pairs.rows)
        ]
    )
    assert margins.abs().min() > 1e-4  # so that each pair counts
    found = train(model, pairs, RECIPE, tmp_path, tokenizer)
    assert found.losses == [pytest.approx(float(-logsigmoid(margins).mean()), rel=1e-4)]
    assert tokenizer.pad_token == padding  # the other stages' tokenizer is left as it was


def test_training_moves_adapter_and_head_until_the_chosen_answers_score_higher(
    model: PeftModel, pairs: TokenizedPairs, tmp_path: Path, tokenizer: Any, renderer: Renderer
) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = RewardRecipe(epochs=15, batch_pairs=3, learning_rate=0.01, rank=4, alpha=8)
    found = train(model, pairs, recipe, tmp_path, tokenizer)
    moved = {n for n, p in model.named_parameters() if not torch.equal(before[n], p)}
    assert any("score.modules_to_save" in name for name in moved)
    assert any("lora_A" in name for name in moved)
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    assert found.losses[-1] < 0.5 * found.losses[0]
    scorer = RewardModel(model, renderer)
    for chosen, rejected in map(sides, pairs.rows):
        assert scorer.score_ids(chosen) > scorer.score_ids(rejected)


@pytest.fixture(scope="module")
def published(
    tiny_base: BaseModel,
    pairs: TokenizedPairs,
    tokenizer: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str, PeftModel]:
    """(root, digest, the model in memory) of a trained one."""
    root = tmp_path_factory.mktemp("rewards")
    set_seed(0)
    model = fresh_reward_model(tiny_base, RECIPE)
    train(model, pairs, RECIPE, tmp_path_factory.mktemp("stage"), tokenizer)
    about = {"snapshot": "sha256:" + "0" * 64, "heldout_accuracy": 0.5}
    return root, publish_reward(root, model, tiny_base, about), model


def test_a_reloaded_reward_model_scores_as_the_one_that_was_trained(
    published: tuple[Path, str, PeftModel], tiny_base: BaseModel, renderer: Renderer
) -> None:
    root, digest, model = published
    trained, reloaded = RewardModel(model, renderer), RewardModel.open(root, digest, tiny_base)
    prompt = (Message("user", "Say hello."),)
    scores = [trained.score(prompt, text) for text in ("Hello there, sailor!", "No.", "")]
    assert scores == [reloaded.score(prompt, t) for t in ("Hello there, sailor!", "No.", "")]
    assert len(set(scores)) == 3


def test_an_answer_that_was_cut_off_scores_differently_from_one_that_was_ended(
    published: tuple[Path, str, PeftModel], renderer: Renderer
) -> None:
    scorer = RewardModel(published[2], renderer)
    prompt = (Message("user", "Say hello."),)
    assert scorer.score(prompt, "Hello") != scorer.score(prompt, "Hello", complete=False)


def test_in_bf16_the_head_still_computes_and_trains_in_fp32(
    pairs: TokenizedPairs,
    tiny_base: BaseModel,
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reward_model, "detect", lambda: replace(detect(), dtype=torch.bfloat16))
    model = fresh_reward_model(tiny_base, RECIPE)
    head = model.get_base_model().score.modules_to_save["default"]
    before = head.weight.detach().clone()
    # Steps of 1e-5 from weights of some 0.02 are below the precision of bf16 (2**-9 relative)
    recipe = replace(RECIPE, learning_rate=1e-5)
    train(model, pairs, recipe, tmp_path, tokenizer)
    assert head.weight.dtype == torch.float32
    assert float((head.weight.detach() - before).abs().median()) == pytest.approx(1e-5, rel=0.05)
    assert model.get_base_model().model.embed_tokens.weight.dtype == torch.bfloat16


def test_a_score_is_that_of_the_last_token(
    published: tuple[Path, str, PeftModel], renderer: Renderer
) -> None:
    model = published[2]
    ids = renderer.pair((Message("user", "Say hello."),), "Hello there!").input_ids
    assert RewardModel(model, renderer).score_ids(ids) == pytest.approx(
        score_by_hand(model, ids), rel=1e-5
    )


def test_a_score_that_is_no_number_is_an_error_and_not_a_bad_answer(
    model: PeftModel, renderer: Renderer
) -> None:
    model.get_base_model().score.modules_to_save["default"].weight.data.fill_(float("nan"))
    with pytest.raises(EngineFailure, match="nan"):
        RewardModel(model, renderer).score((Message("user", "Say hello."),), "Hello")


def test_only_weights_and_configuration_are_kept_and_no_folder_of_this_machine(
    published: tuple[Path, str, PeftModel], tiny_base: BaseModel
) -> None:
    root, digest, _ = published
    folder = folder_of(root, digest)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    assert manifest["base_digest"] == tiny_base.digest
    assert manifest["heldout_accuracy"] == 0.5
    assert str(tiny_base.folder.parent) not in (folder / "adapter_config.json").read_text()


def test_a_changed_or_foreign_reward_model_is_refused(
    model: PeftModel, tiny_base: BaseModel, tmp_path: Path
) -> None:
    digest = publish_reward(tmp_path, model, tiny_base, {"base_digest": "sha256:" + "1" * 64})
    with pytest.raises(InvalidInput, match="another base model"):
        RewardModel.open(tmp_path, digest, tiny_base)
    with (folder_of(tmp_path, digest) / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidInput, match="differs from its sha256"):
        RewardModel.open(tmp_path, digest, tiny_base)


def test_a_bundle_is_no_reward_model(tiny_base: BaseModel, tmp_path: Path) -> None:
    digest = make_bundle(tmp_path, tiny_base)
    with pytest.raises(InvalidInput, match="format is 'burnish-bundle/1'"):
        RewardModel.open(tmp_path, digest, tiny_base)


def test_held_out_accuracy_stands_beside_longer_wins_and_ties_count_half() -> None:
    """Scores are sums of ids: a win, a tie and a loss make 1.5 of 3.

    In characters the chosen answer is longer in the first pair alone: 1 of 3.
    """
    rows = [
        {"prompt_ids": [1], "chosen_ids": [9], "rejected_ids": [8]},
        {"prompt_ids": [2], "chosen_ids": [4, 4], "rejected_ids": [8]},
        {"prompt_ids": [3], "chosen_ids": [1, 2], "rejected_ids": [4]},
    ]
    found = heldout_accuracy(lambda ids: float(sum(ids)), rows, ROWS)
    assert found == {
        "heldout_pairs": 3,
        "heldout_accuracy": 1.5 / 3,
        "longer_wins_accuracy": pytest.approx(1 / 3),
    }


def test_without_held_out_pairs_there_is_no_accuracy() -> None:
    assert heldout_accuracy(lambda ids: 0.0, [], []) == {
        "heldout_pairs": 0,
        "heldout_accuracy": None,
        "longer_wins_accuracy": None,
    }
