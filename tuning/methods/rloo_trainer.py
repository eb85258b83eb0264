"""REINFORCE with a leave-one-out baseline (RLOO; Ahmadian et al. 2024), on a reward model.

For each prompt the model gives several answers; an answer's advantage is its reward minus the mean
reward of the others. The reward is the reward model's score minus beta times the answer's KL
divergence from the adapter that came in.

Supports: LoRA on a dense base, starting from any adapter; sampling by transformers' `generate`.
Assumes: prompts already rendered by the one renderer; the reward model reads the same token ids.
Raises: `InvalidInput` without prompts, and whatever trl's RLOOTrainer raises.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from peft import PeftModel
from trl import RLOOConfig, RLOOTrainer

from engine.errors import InvalidInput
from tuning.methods.rloo import RlooRecipe
from tuning.methods.stage import Stage

Prompts = Sequence[Sequence[int]]


class RenderedRLOOTrainer(RLOOTrainer):  # type: ignore[misc]  # trl is untyped here
    """trl's trainer on prompts that are already token ids, see `RenderedDPOTrainer`."""

    def _tokenize_prompts(
        self, prompts: list[list[int]]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}


def make_rloo_trainer(
    model: PeftModel, rows: Dataset, recipe: RlooRecipe, stage: Stage
) -> RenderedRLOOTrainer:
    """Make the trainer, whose reward is that of the stage's reward model.

    `rows` has one column, prompt: token ids.
    """
    prompts: Prompts = rows["prompt"][:] if len(rows) else []
    if not prompts:
        raise InvalidInput("the snapshot has no prompts on its training side to answer")
    reward = stage.open_reward()

    def rewards(prompts: list[list[int]], completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [reward([*p, *c]) for p, c in zip(prompts, completion_ids, strict=True)]

    batch = min(recipe.batch_prompts, len(prompts))
    ordered = _in_order(prompts, recipe.epochs, batch, stage.seed)
    return RenderedRLOOTrainer(
        model=model,
        reward_funcs=rewards,
        args=RLOOConfig(
            **stage.arguments(
                epochs=1, learning_rate=recipe.learning_rate, batch=batch * recipe.samples
            ),
            beta=recipe.beta,
            num_generations=recipe.samples,
            max_completion_length=recipe.max_new_tokens,
            temperature=recipe.temperature,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": list(ids)} for ids in ordered]),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )


def _in_order(prompts: Prompts, epochs: float, batch: int, seed: int) -> list[Sequence[int]]:
    """The prompts of all epochs one after the other, shuffled anew for each, in whole batches.

    trl shuffles with a generator that begins anew when a run is resumed, so a second epoch that is
    resumed would see another order.
    """
    generator = random.Random(seed)  # noqa: S311 - no secret
    wanted = max(1, round(epochs * len(prompts) / batch)) * batch
    rows: list[Sequence[int]] = []
    while len(rows) < wanted:
        rows += generator.sample(prompts, len(prompts))
    return rows[:wanted]
