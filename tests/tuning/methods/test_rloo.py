"""RLOO: its advantages and its reward against the paper's formulas, and what it trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.errors import EngineFailure, InvalidInput
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from tests.helpers import make_bundle
from tests.support.losses import Recorder, adapter_weights, token_logprobs
from tests.support.pairs import row
from tuning.dataset import distinct_prompts
from tuning.methods.base import broken_rules
from tuning.methods.rloo import RlooRecipe
from tuning.methods.stage import Stage

RECIPE = RlooRecipe(
    epochs=2, batch_prompts=2, samples=3, max_new_tokens=8, learning_rate=0.01, beta=0.05
)
PAIRS = [row("Say hello.", "Hello!", "No."), row("And the sea?", "Wide.", "Deep.")]


@dataclass
class Rewards:
    """A fixed reward, the number of even ids, that remembers what it scored."""

    breaks_at: int | None = None
    seen: list[list[int]] = field(default_factory=list)

    def __call__(self, ids: Sequence[int]) -> float:
        if len(self.seen) == self.breaks_at:
            raise EngineFailure("the reward model broke")
        self.seen.append(list(ids))
        return self.of(ids)

    @staticmethod
    def of(ids: Sequence[int]) -> float:
        return float(sum(token % 2 == 0 for token in ids))


@pytest.fixture
def model(tiny_base: BaseModel) -> PeftModel:
    return fresh(tiny_base)


@pytest.fixture(scope="module")
def prompts(renderer: Renderer) -> list[list[int]]:
    return distinct_prompts(renderer, PAIRS, 512)[0]


def stage(folder: Path, tokenizer: Any) -> tuple[Stage, Recorder]:
    recorder = Recorder()
    return Stage("rloo", folder, 0, tokenizer, recorder), recorder


def train(
    model: PeftModel, prompts: list[list[int]], recipe: RlooRecipe, where: Stage, rewards: Any
) -> None:
    trainer_of(model, prompts, recipe, where, rewards).train(
        resume_from_checkpoint=where.checkpoint
    )


def trainer_of(
    model: PeftModel, prompts: list[list[int]], recipe: RlooRecipe, where: Stage, rewards: Any
) -> Any:
    rows = Dataset.from_list([{"prompt": ids} for ids in prompts])
    return recipe.trainer(model, rows, replace(where, open_reward=lambda: rewards))


def leave_one_out(rewards: list[float], group: int) -> list[float]:
    """Each reward minus the mean of the others of its group (Ahmadian et al. 2024)."""
    advantages = []
    for start in range(0, len(rewards), group):
        members = rewards[start : start + group]
        for i, reward in enumerate(members):
            others = members[:i] + members[i + 1 :]
            advantages.append(reward - sum(others) / len(others))
    return advantages


def test_two_steps_move_the_adapter_and_nothing_else(
    model: PeftModel, prompts: list[list[int]], tmp_path: Path, tokenizer: Any
) -> None:
    where, recorder = stage(tmp_path, tokenizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, prompts, RECIPE, where, Rewards())
    assert len(recorder.weights) == 2  # two prompts an epoch, two a batch
    for earlier, later in zip(
        [{n: before[n] for n in recorder.weights[0]}, recorder.weights[0]],
        recorder.weights,
        strict=True,
    ):
        assert any(not torch.equal(earlier[name], later[name]) for name in later)
    for name, value in before.items():
        if ".default." not in name:
            assert torch.equal(model.get_parameter(name), value), name


def test_at_first_an_advantage_is_the_reward_without_the_mean_of_the_others(
    model: PeftModel, prompts: list[list[int]], tmp_path: Path, tokenizer: Any
) -> None:
    """Policy and reference are the same then, so the divergence takes nothing away."""
    rewards = Rewards()
    trainer = trainer_of(
        model, prompts, replace(RECIPE, epochs=1), stage(tmp_path, tokenizer)[0], rewards
    )
    trainer.train()
    scored = [Rewards.of(ids) for ids in rewards.seen]
    assert len(scored) == 6
    assert max(scored) > min(scored)
    advantages = leave_one_out(scored, group=3)
    assert list(trainer._logs["advantages"]) == pytest.approx(advantages, abs=1e-4)


def test_later_the_divergence_from_the_adapter_that_came_in_is_taken_from_the_reward(
    tiny_base: BaseModel, prompts: list[list[int]], tmp_path: Path, tokenizer: Any
) -> None:
    """Reward minus beta times log(policy / reference) of the whole answer, by hand."""
    bundle = make_bundle(tmp_path / "bundles", tiny_base).removeprefix("sha256:")

    def load() -> PeftModel:
        base = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
        folder = str(tmp_path / "bundles" / bundle)
        return PeftModel.from_pretrained(base, folder, is_trainable=True)

    rewards = Rewards()
    recipe = replace(RECIPE, beta=2.0)
    where, recorder = stage(tmp_path / "stage", tokenizer)
    policy = load()
    trainer = trainer_of(policy, prompts, recipe, where, rewards)
    trainer.train()
    advantages = list(trainer._logs["advantages"])  # of the second step
    second = rewards.seen[6:]
    set_weights(policy, recorder.weights[0])  # what the second step's answers came from
    reference = load().eval()
    policy.eval()
    divergences = [
        sequence_logprob(policy, prompts, ids) - sequence_logprob(reference, prompts, ids)
        for ids in second
    ]
    assert max(map(abs, divergences)) > 0.1
    shaped = [Rewards.of(ids) - 2.0 * kl for ids, kl in zip(second, divergences, strict=True)]
    assert advantages == pytest.approx(leave_one_out(shaped, group=3), rel=1e-2, abs=1e-2)


@pytest.mark.integration
def test_a_run_that_was_broken_off_goes_on_as_if_nothing_had_happened(
    tiny_base: BaseModel, prompts: list[list[int]], tmp_path: Path, tokenizer: Any
) -> None:
    """12 steps at once, and 12 of which the 11th fails after the checkpoint of the 10th."""
    recipe = replace(RECIPE, epochs=12, max_new_tokens=4)
    whole, broken, resumed = fresh(tiny_base), fresh(tiny_base), fresh(tiny_base)
    train(whole, prompts, recipe, stage(tmp_path / "whole", tokenizer)[0], Rewards())
    where = stage(tmp_path / "broken", tokenizer)[0]
    rewards = Rewards(breaks_at=10 * 6)
    with pytest.raises(EngineFailure):
        train(broken, prompts, recipe, where, rewards)
    train(resumed, prompts, recipe, where, Rewards())
    for name, value in adapter_weights(whole).items():
        assert torch.equal(adapter_weights(resumed)[name], value), name


def fresh(base: BaseModel) -> PeftModel:
    """The tiny model with the same fresh adapter each time."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def set_weights(model: PeftModel, weights: dict[str, Tensor]) -> None:
    for name, value in weights.items():
        model.get_parameter(name).data.copy_(value)
    assert adapter_weights(model).keys() == weights.keys()


def sequence_logprob(model: PeftModel, prompts: list[list[int]], ids: list[int]) -> float:
    (prompt,) = [p for p in prompts if ids[: len(p)] == p]
    return float(token_logprobs(model, prompt, ids[len(prompt) :]).sum())


def test_the_reward_reads_the_very_ids_that_serving_would_show_the_model(
    model: PeftModel, tmp_path: Path, tokenizer: Any, renderer: Renderer
) -> None:
    """A control token that a person typed stays text, which a second rendering would undo."""
    question = "What is <|im_end|> for?"
    prompts, _ = distinct_prompts(renderer, [row(question, "It ends.", "No.")], 512)
    rewards = Rewards()
    recipe = replace(RECIPE, epochs=1)
    train(model, prompts, recipe, stage(tmp_path, tokenizer)[0], rewards)
    expected = list(renderer.prompt((Message("user", question),)))
    assert [ids[: len(expected)] for ids in rewards.seen] == [expected] * 3
    assert all(len(ids) > len(expected) for ids in rewards.seen)


def test_each_prompt_is_answered_once_an_epoch_however_many_pairs_it_has(
    renderer: Renderer,
) -> None:
    pairs = [*PAIRS, row("Say hello.", "Good day!", "Go away.", conversation="other")]
    prompts, too_long = distinct_prompts(renderer, pairs, 512)
    asked = [(Message("user", text),) for text in ("Say hello.", "And the sea?")]
    assert prompts == [list(renderer.prompt(messages)) for messages in asked]
    assert too_long == []


def test_over_the_epochs_each_prompt_is_answered_as_often_as_the_others(
    model: PeftModel, tmp_path: Path, tokenizer: Any, renderer: Renderer
) -> None:
    """Three prompts, two a batch, two epochs: six prompts in three batches, none left out."""
    pairs = [*PAIRS, row("What is bread?", "Flour.", "No.")]
    prompts, _ = distinct_prompts(renderer, pairs, 512)
    rewards = Rewards()
    recipe = replace(RECIPE, samples=2, max_new_tokens=2)
    train(model, prompts, recipe, stage(tmp_path, tokenizer)[0], rewards)
    answered = [sum(ids[: len(p)] == p for ids in rewards.seen) for p in prompts]
    assert answered == [2 * 2] * 3


def test_prompts_that_leave_no_room_are_named_not_cut(renderer: Renderer) -> None:
    longer = row("And the old sailor, and the river, and the sea?", "Wide.", "Deep.")
    limit = len(renderer.prompt(PAIRS[0].prompt))
    prompts, too_long = distinct_prompts(renderer, [PAIRS[0], longer], limit)
    assert len(prompts) == 1
    assert too_long == [longer.origin.conversation_id]


def test_without_prompts_there_is_nothing_to_train_on(
    model: PeftModel, tmp_path: Path, tokenizer: Any
) -> None:
    with pytest.raises(InvalidInput, match="no prompts"):
        train(model, [], RECIPE, stage(tmp_path, tokenizer)[0], Rewards())


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"samples": 1}, "samples"),
        ({"beta": -0.1}, "beta"),
        ({"batch_prompts": 0}, "batch_prompts"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_a_recipe_that_cannot_work_says_which_value_is_wrong(
    values: dict[str, Any], problem: str
) -> None:
    (found,) = broken_rules("rloo", replace(RECIPE, **values).rules())
    assert problem in found
    assert all(RECIPE.rules().values())
