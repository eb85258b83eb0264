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
    """How a family numbers the tokens of a sequence."""

    def prefix(self, prompt_ids: Sequence[int]) -> int:
        """Leading tokens that see each other both ways; 0 where attention is causal."""
        ...

    def __call__(self, prompt_ids: Sequence[int], begin: int, end: int) -> Tensor:
        """Positions (end - begin, channels) of tokens begin..end of prompt and answer."""
        ...


class CausalPositions:
    """0, 1, 2, ..., and no prefix."""

    def prefix(self, prompt_ids: Sequence[int]) -> int:
        """None."""
        return 0

    def __call__(self, prompt_ids: Sequence[int], begin: int, end: int) -> Tensor:
        """(end - begin, 1)."""
        return torch.arange(begin, end)[:, None]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A checkpoint's decoder, before any weight is read."""

    config: DecoderConfig
    layout: CheckpointLayout
    positions: Positions

    @property
    def widths(self) -> frozenset[int]:
        """Sizes that kernels working on several channels at a time must suit."""
        modules = [m for layer in self.layout.layers for each in layer.linears for m in each]
        sizes = {size for m in modules for size in (m.in_features, m.out_features)}
        return frozenset(sizes | {self.config.heads.dim})


def require(config: Mapping[str, Any], *, unlike: Mapping[str, Any]) -> None:
    """Raise `ModelUnavailable` where a setting that this project leaves out has a value.

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
    """Order of a head's channels that turns neighbouring rotary pairs (2i, 2i + 1) into pairs
    (i, i + rotated / 2). Scores do not change when queries and keys are reordered alike."""
    pairs = torch.arange(rotated).view(-1, 2).T.flatten()
    return torch.cat([pairs, torch.arange(rotated, dim)])


def head_rows(order: Tensor, heads: int, dim: int, first: int = 0) -> Tensor:
    """Rows of `heads` heads from row `first` on, each head's channels in `order`."""
    starts = first + dim * torch.arange(heads)
    return (starts[:, None] + order[None]).flatten()
