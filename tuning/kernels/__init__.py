"""Kernels for the operations of a tuning step beside matrix products, in torch and compiled.

`portable.py` says what each operation computes; `native.py` computes the same on an x86 processor
in one pass over memory each. `choose_kernels` picks one; what runs on it need not know which.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.kernels.build import NotBuilt, build
from tuning.kernels.native import NativeTuningKernels
from tuning.kernels.portable import PortableTuningKernels, SoftmaxSums, TuningKernels

KERNEL_SOURCE = Path(__file__).with_name("cpu.cpp")
OPENMP_FLAG = "-fopenmp"  # torch's, which the process has loaded: one team of threads for both
PORTABLE: TuningKernels = PortableTuningKernels()


@dataclass(frozen=True, slots=True)
class TuningKernelChoice:
    """The kernels chosen, and why."""

    kernels: TuningKernels
    reason: str

    @property
    def name(self) -> str:
        """The name of the kernels: the roundings of different ones differ."""
        return "compiled" if isinstance(self.kernels, NativeTuningKernels) else "torch"


def choose_kernels(cache: Path | None) -> TuningKernelChoice:
    """The compiled kernels where they can be built and agree with torch, else torch itself.

    `cache`: where they are kept; None: nowhere, so that torch computes.
    """
    if cache is None:
        return TuningKernelChoice(PORTABLE, "torch's own kernels, as asked for")
    if torch.cuda.is_available():
        return TuningKernelChoice(PORTABLE, "torch's own kernels on cuda")
    try:
        native = NativeTuningKernels(build(cache, KERNEL_SOURCE, OPENMP_FLAG))
    except (NotBuilt, OSError) as error:  # no compiler, or a cache that cannot be written or run
        return TuningKernelChoice(PORTABLE, f"torch's own kernels, slower: {error}")
    if not _agree(native):
        return TuningKernelChoice(
            PORTABLE, "torch's own kernels: the compiled ones disagree with them here"
        )
    return TuningKernelChoice(native, "compiled for this processor")


def _agree(native: NativeTuningKernels) -> bool:
    """Return whether the compiled kernels agree with torch on this processor, in either format.

    Their code path may be one that no test ran on."""
    for dtype, apart in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        found = zip(_outputs(native, dtype), _outputs(PORTABLE, dtype), strict=True)
        if not all((a.float() - b.float()).norm() <= apart * b.float().norm() for a, b in found):
            return False
    return True


def _outputs(kernels: TuningKernels, dtype: torch.dtype) -> list[Tensor]:
    """Results of each operation, on sizes that take whole tiles and leave a part of one over."""
    numbers = torch.Generator().manual_seed(0)
    q, k, v, dy = (
        torch.randn(190, heads, 64, generator=numbers).to(dtype) for heads in (4, 2, 2, 4)
    )
    segments = [(0, 0, 0, 101), (0, 37, 101, 190)]
    result, log_sums = kernels.attend(q, k, v, segments, 0.2)
    gradients = kernels.attend_backward(dy, q, k, v, result, log_sums, segments, 0.2)
    rows, slopes, weight = q.flatten(1), dy.flatten(1), v.flatten()[:256]
    normed, scale = kernels.rms_norm(rows, weight, 1e-5)
    of_rows = kernels.rms_norm_backward(slopes, rows, weight, scale)
    of_up = slopes.clone()
    gated = kernels.gated_silu_backward(of_up, rows, normed)
    sums = SoftmaxSums.of(190, torch.device("cpu"))
    weights, _ = kernels.softmax_tile(rows.clone(), torch.arange(190), 0, sums)
    turned = q.clone()
    kernels.rotate(turned, k[:, 0], v[:, 0])
    attention = [result, log_sums, *gradients, turned]
    norm_and_gate = [normed, of_rows, kernels.gated_silu(rows, normed), *gated, of_up]
    return [*attention, *norm_and_gate, weights, sums.total, sums.own]
