"""Matrices in groups of 4- or 8-bit codes, and the rounding of dense weights to them.

Knows numbers; knows nothing of how a matrix is laid out for a kernel or in a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 32  # weights that share a scale
# A range slightly narrower than min..max costs the outliers and serves the rest; of these the one
# with the least squared error is taken, group by group.
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A quantized matrix: `scale * code + min` with one scale and one min per 32 columns.

    `codes` is uint8 with codes 0..15 for 4 bits, int8 for 8 bits: (out_features, in_features).
    `scales` and `mins` are float16: (out_features, in_features // 32). Without `mins` the codes
    are symmetric and the weight is `scale * code`.
    """

    codes: Tensor
    scales: Tensor
    mins: Tensor | None
    bits: int

    def dequantize(self) -> Tensor:
        """The weights: (out_features, in_features), float32."""
        weights = self.codes.float().view(*self.scales.shape, GROUP)  # (out, groups, 32)
        weights *= self.scales.float().unsqueeze(2)
        if self.mins is not None:
            weights += self.mins.float().unsqueeze(2)
        return weights.flatten(1)


def quantize_int4(weight: Tensor) -> QuantizedMatrix:
    """Affine codes 0..15 for each 32 inputs of `weight` (out, in), as in GGUF's Q4_1.

    Inputs that do not fill a group are padded with zeros: the codes are (out, padded in).
    """
    groups = _groups(weight)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    best: tuple[Tensor, Tensor, Tensor] | None = None
    least = torch.full_like(low, torch.inf)
    for shrink in SHRINKS:
        middle, half_range = (low + high) / 2, (high - low) / 2 * shrink
        scale = (2 * half_range / 15).half().float()
        minimum = (middle - half_range).half().float()
        codes = ((groups - minimum) / scale.clamp(min=1e-12)).round().clamp(0, 15)
        error = (codes * scale + minimum - groups).square().sum(-1, keepdim=True)
        if best is None:
            best, least = (codes, scale, minimum), error
            continue
        better = error < least
        least = torch.where(better, error, least)
        found = (codes, scale, minimum)
        best = tuple(torch.where(better, new, old) for new, old in zip(found, best, strict=True))  # type: ignore[assignment]
    assert best is not None
    codes, scale, minimum = best
    return QuantizedMatrix(
        codes.flatten(1).to(torch.uint8), scale[..., 0].half(), minimum[..., 0].half(), bits=4
    )


def quantize_int8(weight: Tensor) -> QuantizedMatrix:
    """Symmetric codes -127..127 for each 32 inputs of `weight` (out, in), as in GGUF's Q8_0."""
    groups = _groups(weight)
    scale = (groups.abs().amax(-1, keepdim=True) / 127).half().float()
    codes = (groups / scale.clamp(min=1e-12)).round().clamp(-127, 127)
    return QuantizedMatrix(codes.flatten(1).to(torch.int8), scale[..., 0].half(), None, bits=8)


def _groups(weight: Tensor) -> Tensor:
    """(out, groups, GROUP) float32, padded with zeros."""
    missing = -weight.shape[1] % GROUP
    return F.pad(weight.float(), (0, missing)).reshape(len(weight), -1, GROUP)
