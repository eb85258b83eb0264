"""Log-probabilities of given tokens from hidden states, never holding the logits of a batch.

The output head is the largest matrix of a small model: its product is made tile by tile, with a
running softmax (Milakov & Gimelshein 2018, alg. 3), and the gradient for the hidden states is
gathered on the way, since for log p(target) it is W[target] - sum_v p_v W_v (times a number per
token that comes later). So the backward pass computes nothing again. The head is frozen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from tuning.kernels.portable import SoftmaxSums, TuningKernels

TILE_TOKENS, TILE_VOCABULARY = 256, 4096  # 4 MB of floats: stays in a processor's cache


class Scores(NamedTuple):
    """Scores of each token, each (tokens,); only `log_probs` has a gradient.

    The natural log-probability, the entropy and the mean logit of the distribution, and whether
    the token was the likeliest one."""

    log_probs: Tensor
    entropy: Tensor
    mean_logits: Tensor
    is_top1: Tensor


def score_tokens(hidden: Tensor, weight: Tensor, targets: Tensor, kernels: TuningKernels) -> Scores:
    """Score `targets` (tokens,) given the hidden states (tokens, width) that predict them.

    weight: (vocabulary, width), frozen.
    """
    scores: tuple[Tensor, ...] = _Score.apply(hidden, weight, targets, kernels)  # type: ignore[no-untyped-call]
    return Scores(*scores)


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden: Tensor, weight: Tensor, targets: Tensor, kernels: TuningKernels
    ) -> tuple[Tensor, ...]:
        mean = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        pieces = [
            _score_tile(hidden[tile], weight, targets[tile], mean[tile], kernels)
            for tile in _tiles(len(hidden), TILE_TOKENS)
        ] or [tuple(mean.new_zeros(0) for _ in range(4))]
        log_probs, entropy, mean_logits, is_top1 = (torch.cat(p) for p in zip(*pieces, strict=True))
        gradient = mean.neg_().add_(weight[targets])  # of log p, for the hidden states
        ctx.save_for_backward(gradient.to(hidden.dtype))
        ctx.set_materialize_grads(False)
        is_top1 = is_top1.bool()
        ctx.mark_non_differentiable(entropy, mean_logits, is_top1)
        return log_probs, entropy, mean_logits, is_top1

    @staticmethod
    def backward(
        ctx: FunctionCtx, of_log_probs: Tensor | None, *_: None
    ) -> tuple[Tensor | None, None, None, None]:
        if of_log_probs is None:
            return None, None, None, None
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * of_log_probs[:, None].to(gradient.dtype), None, None, None


def _score_tile(
    hidden: Tensor, weight: Tensor, targets: Tensor, mean: Tensor, kernels: TuningKernels
) -> tuple[Tensor, ...]:
    """Scores of one tile of tokens; `mean` (tokens, width) becomes sum_v p_v W_v."""
    tokens, vocabulary = len(hidden), len(weight)
    buffer = hidden.new_empty(tokens, min(TILE_VOCABULARY, vocabulary))
    sums = SoftmaxSums.of(tokens, hidden.device)
    for part in _tiles(vocabulary, TILE_VOCABULARY):
        rows = weight[part]
        logits = torch.mm(hidden, rows.t(), out=buffer[:, : len(rows)])
        weights, rescale = kernels.softmax_tile(logits, targets, part.start, sums)
        _add_product(mean.mul_(rescale[:, None]), weights, rows)
    mean.div_(sums.total[:, None])
    log_total = sums.highest + sums.total.log()
    entropy = log_total - (hidden.float() * mean).sum(-1)
    is_top1 = sums.own >= sums.highest
    return sums.own - log_total, entropy, sums.logits / vocabulary, is_top1


def _add_product(total: Tensor, weights: Tensor, rows: Tensor) -> None:
    if rows.dtype == total.dtype:
        total.addmm_(weights, rows)
    else:
        total.add_(torch.mm(weights.to(rows.dtype), rows))


def _tiles(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
