"""What a tuning step does beside plain matrix products, in torch and in compiled form.

`portable.py` says what each operation computes; `native.py` computes the same on an x86 processor
in one pass over memory each. `choose` picks one; what runs on it need not know which.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.kernels.build import NotBuilt, build
from tuning.kernels.native import NativeKernels
from tuning.kernels.portable import Kernels, PortableKernels

SOURCE = Path(__file__).with_name("cpu.cpp")
THREADS = "-fopenmp"  # torch's, which the process has loaded: one team of threads for both
PORTABLE: Kernels = PortableKernels()


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernels chosen, and why."""

    kernels: Kernels
    reason: str


def choose_kernels(cache: Path | None) -> Choice:
    """The compiled kernels where they can be built and agree with torch, else torch itself.

    `cache`: where they are kept; None: nowhere, so that torch computes.
    """
    if cache is None:
        return Choice(PORTABLE, "torch's own kernels, as asked for")
    if torch.cuda.is_available():
        return Choice(PORTABLE, "torch's own kernels on cuda")
    try:
        native = NativeKernels(build(cache, SOURCE, THREADS))
    except (NotBuilt, OSError) as error:  # no compiler, or a cache that cannot be written or run
        return Choice(PORTABLE, f"torch's own kernels, slower: {error}")
    if not _agree(native):
        return Choice(PORTABLE, "torch's own kernels: the compiled ones disagree with them here")
    return Choice(native, "compiled for this processor")


def _agree(native: NativeKernels) -> bool:
    """Whether attention, the largest of them, is right on this processor, backwards as well: its
    code path may be one that no test ever ran on."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, dy = (torch.randn(70, heads, 32, generator=generator) for heads in (4, 2, 2, 4))
    segments = [(0, 0, 0, 40), (0, 15, 40, 70)]
    found = []
    for kernels in (native, PORTABLE):
        result = kernels.attend(q, k, v, segments, 0.2)
        found.append([*result, *kernels.attend_backward(dy, q, k, v, *result, segments, 0.2)])
    return all((a - b).norm() <= 1e-4 * b.norm() for a, b in zip(*found, strict=True))
