"""Reports a trainer's steps. Knows trl's names for things; knows nothing of where reports go."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from engine.errors import EngineFailure
from tuning.jobs.events import Report, StepDone

# trl's names -> ours
METRICS = {
    "loss": "loss",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "accuracy": "reward_accuracy",  # of a reward model
    "margin": "reward_margin",
    "reward": "reward",  # of RLOO's own answers
    "kl": "kl",
    "completions/mean_length": "answer_tokens",
    "grad_norm": "gradient_norm",
    "num_tokens": "tokens",
    "rewards/good": "reward_good",
    "rewards/bad": "reward_bad",
    "pair_loss": "pair_loss",
    "judgement_loss": "judgement_loss",
    "demonstration_loss": "demonstration_loss",
    "pair_gradient_share": "pair_gradient_share",
    "judgement_gradient_share": "judgement_gradient_share",
    "demonstration_gradient_share": "demonstration_gradient_share",
}


class StepReporter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Reports each optimizer step of one stage; stops the run when the loss is not a number."""

    def __init__(self, stage: str, report: Report) -> None:
        self._stage = stage
        self._report = report
        self._begun = time.monotonic()
        self._first_step = 0
        self._last = (self._begun, 0.0)  # when the last step ended, and the tokens until then

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember where the stage begins, which is not 0 when it resumes."""
        self._begun, self._first_step = time.monotonic(), state.global_step
        # trl counts from here, or from the tokens that the state remembers, by trainer
        self._last = (self._begun, float(state.num_input_tokens_seen))

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
        now = time.monotonic()
        seconds = now - self._begun
        steps = state.global_step - self._first_step
        self._report(
            StepDone(
                stage=self._stage,
                step=state.global_step,
                steps=state.max_steps,
                seconds=round(seconds, 3),
                eta_seconds=round(seconds / steps * (state.max_steps - state.global_step), 1),
                memory_bytes=psutil.Process().memory_info().rss,
                peak_memory_bytes=peak_memory_bytes(),
                tokens_per_second=self._speed(now, metrics),
                **metrics,
            )
        )

    def _speed(self, now: float, metrics: dict[str, float]) -> float | None:
        """Tokens a second since the last step; None for a trainer that counts none."""
        if "tokens" not in metrics:
            return None
        at, tokens = self._last
        self._last = now, metrics["tokens"]
        return round((metrics["tokens"] - tokens) / max(now - at, 1e-9), 1)


def peak_memory_bytes() -> int:
    """The most memory this process has held so far; where no `/proc` tells it, what it holds now.

    Not `getrusage`, whose figure a child begins with its parent's (getrusage(2)).
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024  # proc(5): in kB, which are KiB
    return int(psutil.Process().memory_info().rss)
