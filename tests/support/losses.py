"""Losses by plain forward passes, and a recorder of what a trainer logs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

from engine.models.catalogue import BaseModel
from tests.support.datasets import dataset_of
from tests.support.pairs import row
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.methods.stage import Stage
from tuning.recipe import Recipe
from tuning.rows import TokenizedPairs

ROWS = [
    row("Say hello.", "Hello there, sailor!", "No."),
    row("What is bread?", "Flour, water, salt.", "I will not say what bread is made of."),
    row("And the sea?", "Wide.", "The sea is", rejected_complete=False),
]


@dataclass
class Recorder(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Each step's loss, and the adapter's weights after it."""

    losses: list[float] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)

    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        self.weights.append(adapter_weights(model))

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def adapter_weights(model: Any) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if ".default." in n}


def plain_model(base: BaseModel) -> Any:
    return AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)


def whole_batch(steps: int, **dpo: Any) -> Recipe:
    """All pairs in one batch, so that a step is an epoch and its loss is known."""
    return Recipe(
        sft=SftRecipe(epochs=steps, batch_pairs=len(ROWS)),
        dpo=replace(DpoRecipe(epochs=steps, batch_pairs=len(ROWS)), **dpo),
    )


def train(
    method: str,
    model: PeftModel,
    pairs: TokenizedPairs,
    recipe: Recipe,
    folder: Path,
    tokenizer: Any,
) -> Recorder:
    recorder = Recorder()
    torch.manual_seed(0)
    chosen = recipe.methods[method]
    chosen.train(model, dataset_of(chosen, pairs), Stage("stage", folder, 0, tokenizer, recorder))
    return recorder


@torch.no_grad()
def token_logprobs(model: Any, prompt_ids: list[int], completion_ids: list[int]) -> Tensor:
    """Log-probability of each completion token, (completion,), from one unpadded forward pass."""
    logits: Tensor = model(input_ids=torch.tensor([prompt_ids + completion_ids])).logits[0]
    predicted = logits[len(prompt_ids) - 1 : -1].log_softmax(-1)
    return predicted[torch.arange(len(completion_ids)), torch.tensor(completion_ids)]


def sums(model: Any, pairs: TokenizedPairs, side: str) -> Tensor:
    """log pi(completion | prompt) of each pair's side, (pairs,)."""
    return torch.stack([token_logprobs(model, r["prompt_ids"], r[side]).sum() for r in pairs.rows])


def chosen_nll(model: Any, pairs: TokenizedPairs) -> float:
    """Mean negative log-likelihood of a token of the chosen answers, over the whole batch."""
    tokens = [token_logprobs(model, r["prompt_ids"], r["chosen_ids"]) for r in pairs.rows]
    return -float(torch.cat(tokens).mean())
