"""The choice between torch's kernels and the compiled ones, which are several times faster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.kernels.build import NotBuilt, build
from engine.kernels.interface import Kernels
from engine.kernels.native import SOURCE, THREADS, NativeKernels
from engine.kernels.portable import PortableKernels
from engine.quantization.groups import quantize_int4, quantize_int8
from engine.quantization.packed_cpu import NativeLinear

MULTIPLE = 8  # channels that the compiled kernels work on side by side


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The selected kernels, and the reason."""

    kernels: Kernels
    reason: str

    @property
    def native(self) -> NativeKernels | None:
        """The compiled kernels, if they were selected."""
        return self.kernels if isinstance(self.kernels, NativeKernels) else None


def select_kernels(device: str, cache: Path, widths: Iterable[int] = ()) -> KernelChoice:
    """Select the compiled kernels if they can be built and agree with torch, else torch's.

    `cache`: the folder of compiled kernels; `widths`: sizes of the model's matrices and heads, all
    of which must suit them.
    """
    portable = PortableKernels()
    if device != "cpu":
        return KernelChoice(portable, f"torch's own kernels on {device}")
    if any(width % MULTIPLE for width in widths):  # no published model; some toys
        return KernelChoice(portable, f"torch's own kernels: a width is no multiple of {MULTIPLE}")
    try:
        native = NativeKernels(build(cache, SOURCE, THREADS))
    except (NotBuilt, OSError) as error:  # no compiler, or a cache that cannot be written or run
        return KernelChoice(portable, f"torch's own kernels, slower: {error}")
    if not _agree(native):
        return KernelChoice(
            portable, "torch's own kernels: the compiled ones disagree with them here"
        )
    return KernelChoice(native, "compiled for this processor")


def _agree(native: NativeKernels) -> bool:
    """Return whether both compiled products are right on this processor, whose code path may be
    one that no test ever ran on."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 96, generator=generator)
    x = torch.randn(7, 96, generator=generator)
    for blocks in (quantize_int4(weight), quantize_int8(weight)):
        exact = x @ blocks.dequantize().T
        error = (NativeLinear(native, blocks)(x) - exact).norm() / exact.norm()
        if not error < 0.02:  # inputs rounded to 8 bits cost about 0.5%
            return False
    return True
