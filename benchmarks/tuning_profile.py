"""Where the time of a tuning step goes, from torch's profiler.

Matrix products are told apart by the shapes of their inputs. What compiled kernels do is counted as
the operation that calls them, with the little that Python does there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile

from tuning.batch.head import TILE_VOCABULARY

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_")
OPERATIONS = {  # by a part of the names of `tuning.batch`'s, and of torch's where those compute
    "attention": ("Attention", "flash_attention", "aten::bmm", "aten::baddbmm_"),
    "gated activations": ("_Gated", "silu"),
    "norms": ("_RmsNorm",),
    "softmax of the head": ("_Score",),
}


class StepProfile:
    """Watches what is done between `begin` and `end`."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def begin(self) -> None:
        """Watch from here on."""
        self._profile.start()

    def end(self) -> dict[str, float]:
        """The share of each sort of work in what the processors did, largest first."""
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
        if sizes & {self._rank, 2 * self._rank, 3 * self._rank}:  # of layers with one input, joined
            return "low-rank products"
        return "products of the head" if TILE_VOCABULARY in sizes else "products of the layers"


def _sizes(shapes: Sequence[Sequence[int]]) -> set[int]:
    return {size for shape in shapes for size in shape}
