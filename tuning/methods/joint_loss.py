"""The losses of the joint objective, from log-probabilities. Knows no model and no batch layout.

Pairs: DPO (Rafailov et al. 2023, eq. 7) with smoothed labels (Mitchell 2023, "A note on DPO with
noisy preferences") and an SFT term on the chosen answer (Pang et al. 2024, eq. 2). Lone judgements:
KTO (Ethayarajh et al. 2024, eq. 7 and 8). Demonstrations: the mean negative log-likelihood of a
token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tuning.methods.joint_rows import RowKind

if TYPE_CHECKING:
    from tuning.methods.joint import JointRecipe


@dataclass(frozen=True, slots=True)
class RowScores:
    """Log-probabilities (natural, summed) of rows of one kind, each (rows,) in float32.

    `rejected` and the references are None where the kind has none; `labels` are judgements.
    """

    kind: RowKind
    completion: Tensor
    tokens: Tensor  # of the completion
    reference: Tensor | None = None
    rejected: Tensor | None = None
    rejected_tokens: Tensor | None = None
    rejected_reference: Tensor | None = None
    labels: Tensor | None = None

    @property
    def per_token(self) -> Tensor:
        """The completion's mean log-probability of a token."""
        return self.completion / self.tokens

    def rewards(self, beta: float) -> Tensor:
        """Implicit rewards of the completions: beta log(policy / reference)."""
        assert self.reference is not None, "a demonstration has no reward"
        return beta * (self.completion - self.reference)

    def rejected_rewards(self, beta: float) -> Tensor:
        """The same of a pair's rejected answers."""
        assert self.rejected is not None and self.rejected_reference is not None
        return beta * (self.rejected - self.rejected_reference)


def row_losses(scores: RowScores, recipe: JointRecipe, drift: float) -> Tensor:
    """The weighted loss of each row, (rows,).

    `drift` is the estimated KL divergence from the reference in nats, at least 0: KTO's point of
    comparison (Ethayarajh et al. 2024, sec. 4.1).
    """
    if scores.kind == "demonstration":
        return -recipe.demonstration_weight * scores.per_token
    if scores.kind == "pair":
        margins = scores.rewards(recipe.beta) - scores.rejected_rewards(recipe.beta)
        swapped = recipe.label_smoothing
        preferences = (swapped - 1) * F.logsigmoid(margins) - swapped * F.logsigmoid(-margins)
        return preferences - recipe.pair_sft_weight * scores.per_token
    assert scores.labels is not None
    gains = scores.rewards(recipe.beta) - recipe.beta * drift
    weights = torch.where(scores.labels, float(recipe.good_weight), float(recipe.bad_weight))
    return weights * (1 - torch.sigmoid(torch.where(scores.labels, gains, -gains)))


@dataclass(frozen=True, slots=True)
class SliceScore:
    """The means of a model on rows that it was not trained on; None where there are no rows.

    `loss` is the objective, as in training. `preference_accuracy` compares log-probabilities per
    token, `reward_accuracy` implicit rewards; `chosen` is the log-probability of a token of the
    chosen and demonstrated answers (nats); `good_above_bad` the share of pairs of a good and a bad
    judged answer in which the good one has the higher reward; `drift` the change of a token's
    log-probability from the reference, without its sign (nats).
    """

    loss: float
    preference_accuracy: float | None
    reward_accuracy: float | None
    chosen: float | None
    good_above_bad: float | None
    drift: float | None


def score_slice(parts: Sequence[RowScores], recipe: JointRecipe, drift: float) -> SliceScore:
    """Score a slice from its rows' log-probabilities, a part of one kind at a time."""
    losses = torch.cat([row_losses(part, recipe, drift) for part in parts])
    pairs = [part for part in parts if part.kind == "pair"]
    judged = [part for part in parts if part.kind == "judgement"]
    right = [part.per_token > _rejected_per_token(part) for part in pairs]
    rewarded = [part.rewards(1.0) > part.rejected_rewards(1.0) for part in pairs]
    chosen = [part.per_token for part in parts if part.kind != "judgement"]
    moved = [part.rewards(1.0).abs() / part.tokens for part in [*pairs, *judged]]
    return SliceScore(
        loss=float(losses.mean()),
        preference_accuracy=_mean(right),
        reward_accuracy=_mean(rewarded),
        chosen=_mean(chosen),
        good_above_bad=_good_above_bad(judged),
        drift=_mean(moved),
    )


def _rejected_per_token(pair: RowScores) -> Tensor:
    assert pair.rejected is not None and pair.rejected_tokens is not None
    return pair.rejected / pair.rejected_tokens


def _good_above_bad(judged: Sequence[RowScores]) -> float | None:
    if not judged:
        return None
    rewards = torch.cat([part.rewards(1.0) for part in judged])
    labels = torch.cat([part.labels for part in judged if part.labels is not None])
    above = rewards[labels][:, None] > rewards[~labels][None, :]
    return float(above.float().mean()) if above.numel() else None


def _mean(parts: Sequence[Tensor]) -> float | None:
    return float(torch.cat(list(parts)).float().mean()) if parts else None
