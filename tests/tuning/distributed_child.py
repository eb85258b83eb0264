"""One of the processes of `test_distributed`: `accelerate launch ... distributed_child.py SPEC`.

SPEC is a JSON object: model, folder, accumulation. Trains SFT, DPO and the joint method on made-up
rows; the first process writes each method's steps to `steps.json` and its adapter to
the folder `adapter`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, TrainerCallback

from tests.support.packed_training import BUDGET_TOKENS, for_sft, made_up_rows, tuned_model
from tuning.distributed import join_processes, weights_are_split
from tuning.methods import dpo_trainer, joint_trainer, sft_trainer
from tuning.methods.dpo import DpoRecipe
from tuning.methods.joint import JointRecipe
from tuning.methods.sft import SftRecipe
from tuning.methods.stage import Stage
from tuning.policy import save_adapter
from tuning.recipe import Recipe
from tuning.rows import TokenizedAnswers, TokenizedPairs, TrainingData

ROWS, BATCH = 16, 2
RECIPE = Recipe(
    sft=SftRecipe(epochs=1, batch_pairs=BATCH, learning_rate=1e-3),
    dpo=DpoRecipe(epochs=1, batch_pairs=BATCH, learning_rate=1e-3, sft_weight=0.7),
    joint=JointRecipe(epochs=1, least_steps=0, batch_rows=BATCH, learning_rate=1e-3),
)


class Steps(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """What is logged of each step; only the first process logs."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.logged.append(dict(logs))


def train(model: str, folder: str, accumulation: int) -> None:
    """Both methods, each from the same start."""
    rows = made_up_rows(ROWS)
    for module in (dpo_trainer, sft_trainer, joint_trainer):
        module.default_budget_tokens = lambda: BUDGET_TOKENS  # type: ignore[attr-defined]
    joint = RECIPE.joint.rows(TrainingData(TokenizedPairs(tuple(rows[:8])), shown(rows[8:])))
    of_method = {
        "sft": for_sft(rows),
        "dpo": Dataset.from_list(rows),
        "joint": Dataset.from_list(joint),
    }
    for name, data in of_method.items():
        steps = Steps()
        own = Path(folder) / name
        stage = Stage("stage", own, 0, AutoTokenizer.from_pretrained(model), steps)
        trainer = RECIPE.methods[name].trainer(tuned_model(Path(model)), data, stage)
        trainer.args.gradient_accumulation_steps = accumulation
        trainer.train()
        split = any(isinstance(each, DTensor) for each in trainer.model.parameters())
        assert split == weights_are_split()
        if trainer.is_world_process_zero():
            own.mkdir(parents=True, exist_ok=True)
            (own / "steps.json").write_text(json.dumps(steps.logged))
            model_of = trainer.accelerator.unwrap_model(trainer.model)
            save_adapter(model_of, own / "adapter", stage.checkpoint)
        trainer.accelerator.wait_for_everyone()


def shown(rows: list[dict[str, Any]]) -> TokenizedAnswers:
    """The chosen answers as demonstrations."""
    return TokenizedAnswers(
        tuple({"prompt_ids": r["prompt_ids"], "completion_ids": r["chosen_ids"]} for r in rows)
    )


if __name__ == "__main__":
    join_processes()
    train(**json.loads(sys.argv[1]))
