"""Reports a trainer's steps. Knows trl's names for things; knows nothing of where reports go."""

from __future__ import annotations

import math
import time
from typing import Any

import psutil
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from engine.errors import EngineFailure
from tuning.progress import Report

# trl's names -> ours
METRICS = {
    "loss": "loss",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "grad_norm": "gradient_norm",
    "num_tokens": "tokens",
}


class StepReporter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Reports each optimizer step of one stage; stops the run when the loss is not a number."""

    def __init__(self, stage: str, report: Report) -> None:
        self._stage = stage
        self._report = report
        self._begun = time.monotonic()
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember where the stage begins, which is not 0 when it resumes."""
        self._begun, self._first_step = time.monotonic(), state.global_step

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One line per step."""
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        metrics = {ours: float(logs[theirs]) for theirs, ours in METRICS.items() if theirs in logs}
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(metrics.get(name, 0.0)):
                raise EngineFailure(f"the {name} is {metrics[name]} at step {state.global_step}")
        seconds = time.monotonic() - self._begun
        steps = state.global_step - self._first_step
        self._report(
            {
                "event": "step",
                "stage": self._stage,
                "step": state.global_step,
                "steps": state.max_steps,
                "seconds": round(seconds, 3),
                "eta_seconds": round(seconds / steps * (state.max_steps - state.global_step), 1),
                "memory_bytes": psutil.Process().memory_info().rss,
                **metrics,
            }
        )
