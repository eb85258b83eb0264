"""The trainer of the joint objective: transformers' loop, with a step over packs of each kind.

Supports: LoRA on a dense or quantized base, in packs; virtual tokens, padded. The reference is the
model as it is handed over.
Assumes: rows as `joint_rows` makes them, whose weights are numbers by now.
Raises: whatever transformers' Trainer raises.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from tuning.batch.budget import default_budget_tokens
from tuning.batch.forward import accept_layouts, packing_blocker, positions_of
from tuning.batch.steps import Pack, sum_over_processes
from tuning.methods.joint_batch import (
    JointCollator,
    Row,
    as_reference_row,
    lend_mismatched,
    reference_log_probs,
    row_scores,
    to_device,
)
from tuning.methods.joint_loss import RowScores, SliceScore, row_losses, score_slice
from tuning.methods.joint_rows import ROW_KINDS, RowKind
from tuning.methods.stage import Stage

if TYPE_CHECKING:
    from tuning.methods.joint import JointRecipe  # which imports this module to train

DRIFT_STEPS = 10  # over which KTO's drift is a mean, since a step has few judgements
Contributions = dict[str, dict[str, float | None]]
# The logged rewards of each kind
LOGGED_REWARDS: Mapping[str, Sequence[str]] = {
    "pair": ("rewards/accuracies", "rewards/margins"),
    "judgement": ("rewards/good", "rewards/bad"),
}


LOGGED = (
    "kl",
    *(f"{kind}_{name}" for kind in ROW_KINDS for name in ("loss", "gradient_share")),
    "rewards/chosen",
    "rewards/rejected",
    *(name for names in LOGGED_REWARDS.values() for name in names),
)


class JointTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """Each batch holds rows of all kinds; its loss is the mean of their weighted losses."""

    def __init__(
        self,
        *args: Any,
        recipe: JointRecipe,
        packed: bool,
        slice_rows: Sequence[Row] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._recipe = recipe
        self._slice_rows = slice_rows
        self._packed = packed
        self._logged: dict[str, list[float]] = defaultdict(list)
        self._tokens = 0

    def training_step(
        self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward of each pack, kind by kind; returns the batch's loss."""
        model.train()
        packs: Sequence[Pack] = [to_device(each, self.args.device) for each in inputs["packs"]]
        rows = sum(len(each["label"]) for each in packs)
        drift = self._drift(model, inputs["mismatched"])
        gradients = GradientShares(model)
        total = torch.zeros((), device=self.args.device)
        for batch in packs:
            waiting = batch is not packs[-1]  # processes exchange gradients once a step
            with self.accelerator.no_sync(model) if waiting else nullcontext():
                scores = row_scores(model, batch, packed=self._packed)
                losses = row_losses(scores, self._recipe, drift)
                loss = losses.sum() / rows / self.current_gradient_accumulation_steps
                self.accelerator.backward(loss)
            gradients.add(batch["kind"])
            self._log_rows(scores, losses)
            self._tokens += int(batch["attention_mask"].sum())
            total += losses.detach().sum() / rows
        if self.accelerator.num_processes == 1:  # others' gradients come with the last pack's
            for kind, share in gradients.shares().items():
                self._logged[f"{kind}_gradient_share"].append(share)
        total /= self.current_gradient_accumulation_steps
        return total

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the figures of each kind since the last log, beside transformers' own."""
        if "loss" in logs:
            logs = {**logs, **self._means()}
        super().log(logs, *args, **kwargs)

    def _means(self) -> dict[str, float]:
        """The mean of what was logged since the last time, over all processes, and the tokens."""
        sums = {name: sum(self._logged.get(name, ())) for name in LOGGED}
        counts = {name: float(len(self._logged.get(name, ()))) for name in LOGGED}
        tokens = {"num_tokens": float(self._tokens)}
        self._logged.clear()
        sums, counts, tokens = sum_over_processes(self.accelerator, sums, counts, tokens)
        means = {name: sums[name] / count for name, count in counts.items() if count}
        return {**means, **tokens}

    def train_on(self, checkpoint: str | None) -> None:
        """Train from a checkpoint to the stage's last step, unless it has been reached already."""
        if checkpoint is not None and _step_of(checkpoint) >= self.args.max_steps > 0:
            self._load_from_checkpoint(checkpoint)
            self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        else:
            self.train(resume_from_checkpoint=checkpoint)

    def contributions(self) -> Contributions:
        """The contribution of each kind of evidence, from the run's first step on."""
        return contributions(self.state.log_history, self.train_dataset)

    @torch.no_grad()
    def score_slice(self) -> SliceScore:
        """Score the rows that are held back from training, under the model as it is."""
        self.model.eval()
        drift = self._drift(self.model, ())
        packs = self.data_collator(self._slice_rows)["packs"]
        parts = (to_device(each, self.args.device) for each in packs)
        scores = [row_scores(self.model, part, packed=self._packed) for part in parts]
        return score_slice(scores, self._recipe, drift)

    @torch.no_grad()
    def _drift(self, model: nn.Module, packs: Sequence[Pack]) -> float:
        """The mean over the last `DRIFT_STEPS` steps' mismatched rows, this one's among them."""
        moved = [to_device(batch, self.args.device) for batch in packs]
        if moved:
            found = [row_scores(model, batch, packed=self._packed) for batch in moved]
            references = torch.cat([batch["reference"] for batch in moved])
            change = torch.cat([each.completion for each in found]) - references
            self._logged["kl"].append(float(change.mean()))
        # The state travels with a checkpoint, so that a resumed run knows its last steps
        earlier = [logs["kl"] for logs in self.state.log_history[1 - DRIFT_STEPS :] if "kl" in logs]
        recent = [*earlier, *self._logged["kl"]]
        return max(0.0, sum(recent) / len(recent)) if recent else 0.0

    def _log_rows(self, scores: RowScores, losses: Tensor) -> None:
        """Log the losses of one pack's rows, and their rewards, row by row."""
        logged, beta = self._logged, self._recipe.beta
        logged[f"{scores.kind}_loss"] += losses.tolist()
        if scores.kind == "demonstration":
            return
        rewards = scores.rewards(beta).detach()
        if scores.kind == "pair":
            rejected = scores.rejected_rewards(beta).detach()
            logged["rewards/chosen"] += rewards.tolist()
            logged["rewards/rejected"] += rejected.tolist()
            logged["rewards/accuracies"] += (rewards > rejected).float().tolist()
            logged["rewards/margins"] += (rewards - rejected).tolist()
            return
        assert scores.labels is not None
        logged["rewards/good"] += rewards[scores.labels].tolist()
        logged["rewards/bad"] += rewards[~scores.labels].tolist()


def contributions(history: Sequence[Mapping[str, float]], rows: Sequence[Row]) -> Contributions:
    """The contribution of each kind of evidence in a run, from the trainer's logs of all steps.

    `rows`: of an epoch. `loss_before` and `loss_after`: the mean of a row in the first and in the
    last tenth of the steps; rewards: in the last tenth; `gradient_share`: the mean of all steps.
    """
    steps = [logs for logs in history if "loss" in logs]
    tenth = max(1, len(steps) // 10)
    found: Contributions = {}
    for kind, count in Counter(row["kind"] for row in rows).items():
        found[kind] = {
            "rows": count,
            "loss_before": _mean_of(f"{kind}_loss", steps[:tenth]),
            "loss_after": _mean_of(f"{kind}_loss", steps[-tenth:]),
            "gradient_share": _mean_of(f"{kind}_gradient_share", steps),
            **{
                name.removeprefix("rewards/"): _mean_of(name, steps[-tenth:])
                for name in LOGGED_REWARDS.get(kind, ())
            },
        }
    return found


def _mean_of(name: str, steps: Sequence[Mapping[str, float]]) -> float | None:
    """The mean over the steps that logged it; None where none did."""
    values = [float(logs[name]) for logs in steps if name in logs]
    return round(sum(values) / len(values), 4) if values else None


class GradientShares:
    """The share of each kind of evidence in a step's gradient.

    `add` after each pack's backward pass; a kind's part is what the gradient gained meanwhile.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        self._parts: dict[RowKind, list[Tensor]] = {}
        self._before = self._copied()

    def add(self, kind: RowKind) -> None:
        """Attribute what came since the last call to a kind."""
        now = self._copied()
        gained = [after - before for after, before in zip(now, self._before, strict=True)]
        known = self._parts.get(kind)
        self._parts[kind] = (
            gained if known is None else [a + b for a, b in zip(known, gained, strict=True)]
        )
        self._before = now

    def shares(self) -> dict[RowKind, float]:
        """Each kind's norm as a share of the sum of the kinds' norms; they sum to 1."""
        norms = {kind: float(_norm(part)) for kind, part in self._parts.items()}
        total = sum(norms.values())
        return {kind: norm / total if total else 0.0 for kind, norm in norms.items()}

    def _copied(self) -> list[Tensor]:
        return [
            torch.zeros_like(each) if each.grad is None else each.grad.detach().clone()
            for each in self._parameters
        ]


def make_joint_trainer(
    model: PeftModel, rows: Dataset, recipe: JointRecipe, stage: Stage
) -> JointTrainer:
    """The trainer that suits the model: packed, or padded where packing is not possible."""
    packed = packing_blocker(model) is None
    if packed:
        accept_layouts(model, stage.kernels)
    collator = make_collator(model, stage)
    prepared, slice_rows = with_references(
        model, (list(rows), stage.slice_rows), stage, collator, packed=packed
    )
    return JointTrainer(
        model=model,
        args=TrainingArguments(
            **stage.arguments(
                epochs=recipe.epochs_of(len(rows)),
                learning_rate=recipe.learning_rate,
                batch=recipe.batch_rows,
            ),
            remove_unused_columns=False,
        ),
        recipe=recipe,
        packed=packed,
        slice_rows=slice_rows,
        data_collator=collator,
        train_dataset=Dataset.from_list(prepared),
        processing_class=stage.tokenizer,
        callbacks=[stage.callback],
    )


def make_collator(model: PeftModel, stage: Stage) -> JointCollator:
    """The collator of a stage that trains a model."""
    tokenizer = stage.tokenizer
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return JointCollator(default_budget_tokens(), int(padding), positions_of(model))


def with_references(
    model: PeftModel,
    groups: Sequence[Sequence[Row]],
    stage: Stage,
    collator: JointCollator,
    *,
    packed: bool,
) -> list[list[dict[str, Any]]]:
    """Groups of rows with the log-probabilities of the model as it is.

    They are the columns `reference` and `other_reference`: of a pair's two answers, of a judged
    answer and its mismatched one; 0 for a demonstration. Answers are mismatched within a group.
    """
    mixed = [lend_mismatched(rows) for rows in groups]
    compared = [row for rows in mixed for row in rows if row["kind"] != "demonstration"]
    compute = partial(reference_log_probs, model, collator, packed=packed)
    found = iter(stage.references([as_reference_row(row) for row in compared], compute))

    def with_reference(row: Row) -> dict[str, Any]:
        own, other = (0.0, 0.0) if row["kind"] == "demonstration" else next(found)
        return {**row, "reference": own, "other_reference": other}

    return [[with_reference(row) for row in rows] for rows in mixed]


def _step_of(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.stack([each.float().norm() for each in tensors]).norm()
    return norm
