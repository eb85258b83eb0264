"""Log-probabilities without logits, against plain log-softmax in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tuning.batch import head
from tuning.batch.head import score_tokens
from tuning.kernels.portable import TuningKernels


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that leave a part of a tile over in both directions."""
    monkeypatch.setattr(head, "TILE_TOKENS", 4)
    monkeypatch.setattr(head, "TILE_VOCABULARY", 16)


def inputs(tokens: int, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 8) * spread
    return hidden, torch.randn(37, 8), torch.randint(37, (tokens,))


@pytest.mark.parametrize("tokens", [1, 4, 11])
def test_every_score_is_that_of_the_whole_softmax(kernels: TuningKernels, tokens: int) -> None:
    hidden, weight, targets = inputs(tokens)
    logits = hidden.double() @ weight.double().t()
    log_probs = logits.log_softmax(-1)
    found = score_tokens(hidden, weight, targets, kernels)
    own = log_probs.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.log_probs.double(), own, rtol=1e-5, atol=1e-6)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    torch.testing.assert_close(found.entropy.double(), entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.mean_logits.double(), logits.mean(-1), rtol=1e-5, atol=1e-6)
    assert torch.equal(found.is_top1, logits.argmax(-1) == targets)


def test_the_likeliest_token_is_known_as_such(kernels: TuningKernels) -> None:
    hidden, weight, _ = inputs(11)
    assert score_tokens(hidden, weight, (hidden @ weight.t()).argmax(-1), kernels).is_top1.all()


@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_the_gradient_is_that_of_the_whole_softmax(kernels: TuningKernels, spread: float) -> None:
    """Also where logits lie hundreds apart, so that most probabilities are 0 in any format."""
    hidden, weight, targets = inputs(11, spread)
    upstream = torch.randn(11)
    ours, plain = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    torch.autograd.backward(score_tokens(ours, weight, targets, kernels).log_probs, upstream)
    log_probs = (plain @ weight.double().t()).log_softmax(-1)
    torch.autograd.backward(log_probs.gather(1, targets[:, None])[:, 0], upstream.double())
    assert ours.grad is not None and plain.grad is not None
    torch.testing.assert_close(ours.grad.double(), plain.grad, rtol=1e-4, atol=1e-5)


def test_a_batch_without_a_scored_token_is_allowed(kernels: TuningKernels) -> None:
    hidden, weight, targets = inputs(0)
    scores = score_tokens(hidden.requires_grad_(), weight, targets, kernels)
    torch.autograd.backward(scores.log_probs.sum())
    assert scores.log_probs.shape == (0,)
