"""Profiles a tuning step by operation, with torch's profiler.

Matrix products are distinguished by the shapes of their inputs. The time of a compiled kernel
counts for the operation that calls it, with the small overhead of Python there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile

from tuning.batch.head import TILE_VOCABULARY

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_")
OPERATIONS = {  # by a part of the names of operations of `tuning.batch` and of torch
    "attention": ("Attention", "flash_attention", "aten::bmm", "aten::baddbmm_"),
    "gated activations": ("_Gated", "silu"),
    "norms": ("_RmsNorm",),
    "softmax of the head": ("_Score",),
}


class StepProfile:
    """Profiles the operations between `begin` and `end`."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def begin(self) -> None:
        """Start profiling."""
        self._profile.start()

    def end(self) -> dict[str, float]:
        """Stop profiling; returns the share of processor time by operation, largest first."""
        self._profile.stop()
        seconds: dict[str, float] = defaultdict(float)
        for event in self._profile.key_averages(group_by_input_shape=True):
            seconds[self._sort_of(event)] += event.self_cpu_time_total
        total = sum(seconds.values())
        ordered = sorted(seconds.items(), key=lambda each: -each[1])
        return {sort: round(spent / total, 3) for sort, spent in ordered}

    def _sort_of(self, event: Any) -> str:
        for sort, names in OPERATIONS.items():
            if any(name in event.key for name in names):
                return sort
        if event.key not in PRODUCTS:
            return "the rest, such as sums, copies and the interpreter"
        sizes = _sizes(event.input_shapes)
        if sizes & {self._rank, 2 * self._rank, 3 * self._rank}:  # joined products
            return "low-rank products"
        return "products of the head" if TILE_VOCABULARY in sizes else "products of the layers"


def _sizes(shapes: Sequence[Sequence[int]]) -> set[int]:
    return {size for shape in shapes for size in shape}
