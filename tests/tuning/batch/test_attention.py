"""Attention within segments: torch's own, with a mask that says who may see whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tuning.batch.attention import Segments, attend
from tuning.kernels import PORTABLE
from tuning.kernels.portable import Bounds, TuningKernels

HEADS, KEY_HEADS = 6, 2
# A prompt of 70 tokens with two completions of it, one longer than a tile of rows; then a row
# alone; then a prompt of 77 tokens whose first 75 see each other both ways, with two completions
SEGMENTS: tuple[Bounds, ...] = (
    (0, 0, 0, 170),
    (0, 70, 170, 300),
    (300, 300, 300, 310),
    (310, 385, 310, 400),
    (310, 387, 400, 420),
)
TOKENS = 420


def visible() -> Tensor:
    """(tokens, tokens): token i sees token j."""
    seen = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for prompt_start, prompt_end, start, end in SEGMENTS:
        for i in range(start, end):
            seen[i, prompt_start:prompt_end] = True
            seen[i, start : i + 1] = True
    return seen


def inputs(dtype: torch.dtype, size: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value."""
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int) -> Tensor:
        numbers = torch.randn(1, heads, TOKENS, size, generator=generator)
        return numbers.to(dtype).requires_grad_()

    return draw(HEADS), draw(KEY_HEADS), draw(KEY_HEADS)


@pytest.mark.parametrize("scale", [None, 0.1])
@pytest.mark.parametrize("size", [16, 24, 64, 128])  # 24 fills no register, and goes torch's way
@pytest.mark.parametrize(
    ("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
def test_results_and_gradients_are_torchs(
    kernels: TuningKernels, dtype: torch.dtype, apart: float, size: int, scale: float | None
) -> None:
    ours, theirs = inputs(dtype, size), inputs(torch.float32, size)
    with torch.no_grad():
        for one, other in zip(ours, theirs, strict=True):
            other.copy_(one)  # the same numbers, computed with in float32
    found, nothing = attend(
        nn.Identity(), *ours, None, segments=Segments(SEGMENTS, kernels), scaling=scale
    )
    expected = scaled_dot_product_attention(
        *theirs, attn_mask=visible(), scale=scale, enable_gqa=True
    ).transpose(1, 2)
    assert nothing is None
    assert found.shape == (1, TOKENS, HEADS, size)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward(found, upstream.to(dtype))
    torch.autograd.backward(expected, upstream)
    gradients = [(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True)]
    for mine, peer in [(found, expected), *gradients]:
        assert mine is not None and peer is not None and mine.dtype == dtype
        assert float((mine.float() - peer).norm() / peer.norm()) < apart


def test_dropout_goes_torchs_way_and_drops() -> None:
    query, key, value = inputs(torch.float32)
    segments = Segments(SEGMENTS, PORTABLE)
    whole, _ = attend(nn.Identity(), query, key, value, None, segments=segments)
    dropped, _ = attend(nn.Identity(), query, key, value, None, segments=segments, dropout=0.5)
    assert not torch.allclose(whole, dropped)
