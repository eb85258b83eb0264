"""The common beginning of two sequences. Knows nothing of their elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def common_prefix_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return the number of elements that two texts, or two tuples, share at their beginning.

    By bisection: comparing slices is faster than a loop over elements.
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
