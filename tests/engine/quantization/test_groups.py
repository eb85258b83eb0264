"""Rounding weights to groups of 4- or 8-bit codes, by numbers derived by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.quantization.groups import GROUP, QuantizedMatrix, quantize_int4, quantize_int8

Quantize = Callable[[Tensor], QuantizedMatrix]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def by_group(weight: Tensor) -> Tensor:
    return weight.reshape(len(weight), -1, GROUP)


def test_sixteen_even_values_are_their_own_int4_codes() -> None:
    codes = torch.arange(16).repeat(2)  # 0..15, twice: 32 inputs
    blocks = quantize_int4((codes * 0.125 - 1)[None])
    assert blocks.codes.tolist() == [codes.tolist()]
    assert blocks.scales.tolist() == [[0.125]]  # (0.875 - -1) / 15
    assert blocks.mins is not None
    assert blocks.mins.tolist() == [[-1.0]]
    assert blocks.bits == 4


def test_a_value_between_two_int4_codes_takes_the_nearer() -> None:
    weight = (torch.arange(16).repeat(2) * 0.125 - 1)[None]
    weight[0, 3] += 0.04
    weight[0, 4] += 0.09
    assert quantize_int4(weight).codes[0, 2:6].tolist() == [2, 3, 5, 5]


def test_even_values_are_their_own_int8_codes() -> None:
    codes = torch.arange(-127, 128, 8)  # 32 values, -127 .. 121
    blocks = quantize_int8((codes * 0.5)[None])
    assert blocks.codes.tolist() == [codes.tolist()]
    assert blocks.scales.tolist() == [[0.5]]  # 63.5 / 127
    assert blocks.mins is None
    assert blocks.bits == 8


@pytest.mark.parametrize("quantize", [quantize_int4, quantize_int8])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.375])
def test_a_constant_group_is_kept(quantize: Quantize, value: float) -> None:
    weight = torch.full((3, 2 * GROUP), value)
    restored = quantize(weight).dequantize()
    torch.testing.assert_close(restored, weight, rtol=1e-3, atol=0)
    assert quantize is quantize_int8 or torch.equal(restored, weight)


@pytest.mark.parametrize("quantize", [quantize_int4, quantize_int8])
def test_a_group_of_zeros_between_others_stays_zero(quantize: Quantize) -> None:
    weight = torch.randn(2, 3 * GROUP)
    weight[:, GROUP : 2 * GROUP] = 0
    restored = quantize(weight).dequantize()
    assert not by_group(restored)[:, 1].any()
    assert by_group(restored)[:, ::2].any()


@pytest.mark.parametrize("quantize", [quantize_int4, quantize_int8])
def test_groups_do_not_share_a_scale(quantize: Quantize) -> None:
    weight = torch.cat([1000 * torch.randn(4, GROUP), 0.001 * torch.randn(4, GROUP)], dim=1)
    error = by_group(quantize(weight).dequantize() - weight).norm(dim=2)
    assert (error < 0.12 * by_group(weight).norm(dim=2)).all()


@pytest.mark.parametrize("quantize", [quantize_int4, quantize_int8])
@pytest.mark.parametrize("inputs", [1, 31, 40, 136])
def test_inputs_that_do_not_fill_a_group_are_filled_with_zeros(
    quantize: Quantize, inputs: int
) -> None:
    weight = torch.randn(5, inputs)
    blocks = quantize(weight)
    padded = -(-inputs // GROUP) * GROUP
    assert blocks.codes.shape == (5, padded)
    assert blocks.scales.shape == (5, padded // GROUP)
    restored = blocks.dequantize()
    assert ((restored[:, :inputs] - weight).abs() < 0.2 * weight.abs().max()).all()
    assert (restored[:, inputs:].abs() < 0.2 * weight.abs().max()).all()


def test_int8_is_never_off_by_much_more_than_half_a_step() -> None:
    weight = torch.randn(64, 8 * GROUP)
    step = by_group(weight).abs().amax(2) / 127
    error = by_group(quantize_int8(weight).dequantize() - weight).abs().amax(2)
    # a scale is rounded to 11 bits: 127 / 2048 of a step at the end of the range
    assert (error <= (0.5 + 127 / 2048) * step).all()


def test_int4_is_no_worse_than_sixteen_even_steps_over_the_whole_range() -> None:
    groups = torch.randn(64, 8, GROUP)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    step = (high - low) / 15
    plain = ((groups - low) / step).round() * step + low
    error = by_group(quantize_int4(groups.flatten(1)).dequantize()) - groups
    mine, theirs = error.square().sum(2), (plain - groups).square().sum(2)
    assert (mine <= 1.02 * theirs).all()  # scales and minimums are rounded to 11 bits
    assert mine.sum() < 0.97 * theirs.sum()  # and a narrower range is often better


def test_normal_weights_lose_about_eight_percent_in_int4_and_half_a_percent_in_int8() -> None:
    weight = torch.randn(128, 512)

    def loss(restored: Tensor) -> float:
        return float((restored - weight).norm() / weight.norm())

    assert loss(quantize_int4(weight).dequantize()) == pytest.approx(0.08, abs=0.01)
    assert loss(quantize_int8(weight).dequantize()) == pytest.approx(0.005, abs=0.001)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("quantize", [quantize_int4, quantize_int8])
def test_weights_stored_in_half_precision_are_rounded_from_their_exact_values(
    quantize: Quantize, dtype: torch.dtype
) -> None:
    weight = torch.randn(8, 64).to(dtype)
    expected, found = quantize(weight.float()), quantize(weight)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)
