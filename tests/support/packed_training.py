"""Trainers watched step by step, so that packed ones can be compared with trl's own."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

BUDGET_TOKENS = 60


LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


Rows = list[dict[str, Any]]


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """The first step's gradients and logs."""

    gradients: dict[str, Tensor] = field(default_factory=dict)
    logs: dict[str, float] = field(default_factory=dict)

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        if not self.gradients:
            self.gradients = {
                n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
            }

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if not self.logs:
            self.logs = dict(logs)


def made_up_rows(count: int, seed: int = 0) -> Rows:
    chance = random.Random(seed)

    def ids(least: int, most: int) -> list[int]:
        return [chance.randrange(5, 200) for _ in range(chance.randint(least, most))]

    return [
        {"prompt_ids": ids(3, 20), "chosen_ids": ids(1, 30), "rejected_ids": ids(1, 30)}
        for _ in range(count)
    ]


def for_sft(rows: Rows) -> Dataset:
    return Dataset.from_list(
        [
            {
                "input_ids": row["prompt_ids"] + row["chosen_ids"],
                "completion_mask": [0] * len(row["prompt_ids"]) + [1] * len(row["chosen_ids"]),
            }
            for row in rows
        ]
    )


def tuned_model(folder: Path, **changed: Any) -> PeftModel:
    """With an adapter that already does something."""
    torch.manual_seed(0)
    config = {"r": 4, "lora_alpha": 8, "target_modules": LINEARS, "task_type": "CAUSAL_LM"}
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(**(config | changed)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def watched(trainer: Any) -> Watch:
    trainer.train()
    (watch,) = [c for c in trainer.callback_handler.callbacks if isinstance(c, Watch)]
    assert isinstance(watch, Watch)
    return watch


def assert_same(ours: Watch, trl: Watch) -> None:
    assert ours.logs == {name: pytest.approx(v, rel=1e-4, abs=1e-6) for name, v in trl.logs.items()}
    assert ours.gradients.keys() == trl.gradients.keys()
    assert len(trl.gradients) > 0
    for name, gradient in trl.gradients.items():
        apart = (ours.gradients[name] - gradient).norm() / gradient.norm()
        assert float(apart) < 1e-4, name
