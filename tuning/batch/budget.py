"""The tokens that are computed at once, by the device."""

from __future__ import annotations

import torch


def default_budget_tokens() -> int:
    """The tokens of a pack.

    A small pack stays in a processor's cache and keeps the peak memory low, with matrices that are
    large enough; a CUDA device wants larger ones (assumed, not measured).
    """
    return 2048 if torch.cuda.is_available() else 512
