"""A checkpoint's architecture before any weight is read, and what families need to describe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.errors import ModelUnavailable
from engine.models.decoder import CheckpointLayout, DecoderConfig


class Positions(Protocol):
    """The interface of a family's positions: how it numbers the tokens of a sequence."""

    def prefix(self, prompt_ids: Sequence[int]) -> int:
        """Leading tokens that see each other both ways; 0 where attention is causal.

        Raises `InvalidInput` for ids that are no prompt of the family.
        """

    def __call__(self, prompt_ids: Sequence[int], begin: int, end: int) -> Tensor:
        """Positions (end - begin, channels) of tokens begin..end of prompt and answer."""


class CausalPositions:
    """The positions 0, 1, 2, ..., without a prefix."""

    def prefix(self, prompt_ids: Sequence[int]) -> int:
        """See `Positions`."""
        return 0

    def __call__(self, prompt_ids: Sequence[int], begin: int, end: int) -> Tensor:
        """See `Positions`; one channel."""
        return torch.arange(begin, end)[:, None]


@dataclass(frozen=True, slots=True)
class Architecture:
    """The description of a decoder by its configuration; no weight is read."""

    config: DecoderConfig
    layout: CheckpointLayout
    positions: Positions

    @property
    def widths(self) -> frozenset[int]:
        """Sizes of matrices and heads, which must suit kernels that compute several channels."""
        modules = [m for layer in self.layout.layers for each in layer.linears for m in each]
        sizes = {size for m in modules for size in (m.in_features, m.out_features)}
        return frozenset(sizes | {self.config.heads.dim})


def require(config: Mapping[str, Any], *, unlike: Mapping[str, Any]) -> None:
    """Raise `ModelUnavailable` if a setting that the decoder does not know is used.

    `unlike` gives the value of each such setting that means "not used".
    """
    used = [
        f"{name} = {config[name]!r}"
        for name, unused in unlike.items()
        if config.get(name, unused) not in (unused, None)
    ]
    if used:
        raise ModelUnavailable(f"the fast engine does not cover {', '.join(used)}")


def interleaved_to_halves(dim: int, rotated: int) -> Tensor:
    """The order of channels that makes pairs (i, i + rotated / 2) of pairs (2i, 2i + 1).

    Attention does not change when queries and keys are reordered alike.
    """
    pairs = torch.arange(rotated).view(-1, 2).T.flatten()
    return torch.cat([pairs, torch.arange(rotated, dim)])


def head_rows(order: Tensor, heads: int, dim: int, first: int = 0) -> Tensor:
    """The rows of `heads` heads from row `first` on, with the channels of each in `order`."""
    starts = first + dim * torch.arange(heads)
    return (starts[:, None] + order[None]).flatten()
