"""Rows that decode together over one left-padded key-value cache.

Works for any decoder-only transformers model, since it only uses `DynamicCache` and the
attention mask. Knows nothing of sampling, adapters or streams.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache


class RowBatch:
    """The cache and mask of the running rows; row i of every tensor is row i of the caller's list.

    mask  # (rows, tokens), 1 where the cache holds a token of the row, 0 where it is padding
    """

    def __init__(self) -> None:
        self.cache: DynamicCache | None = None
        self.mask = torch.zeros(0, 0, dtype=torch.long)

    def join(self, cache: DynamicCache) -> None:
        """Append one prefilled row."""
        row_mask = torch.ones(1, cache.get_seq_length(), dtype=torch.long)
        if self.cache is None:
            self.cache, self.mask = cache, row_mask
            return
        width = max(self.mask.shape[1], row_mask.shape[1])
        for ours, theirs in zip(self.cache.layers, cache.layers, strict=True):
            ours.keys = torch.cat([_pad_left(ours.keys, width), _pad_left(theirs.keys, width)])
            ours.values = torch.cat(
                [_pad_left(ours.values, width), _pad_left(theirs.values, width)]
            )
        self.mask = torch.cat(
            [_pad_left(m[..., None], width)[..., 0] for m in (self.mask, row_mask)]
        )

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, and the padding that no row needs any more."""
        if not rows or self.cache is None:
            self.cache, self.mask = None, torch.zeros(0, 0, dtype=torch.long)
            return
        mask = self.mask[rows]
        padding = int(mask.argmax(dim=1).min())  # every row has a token; the first is its first 1
        self.mask = mask[:, padding:]
        for layer in self.cache.layers:
            layer.keys = layer.keys[rows, :, padding:]
            layer.values = layer.values[rows, :, padding:]

    def grow(self) -> tuple[Tensor, Tensor]:
        """Make room for one token a row; returns the mask and the new positions (rows, 1)."""
        self.mask = torch.cat([self.mask, torch.ones(len(self.mask), 1, dtype=torch.long)], dim=1)
        return self.mask, self.mask.sum(dim=1, keepdim=True) - 1


def _pad_left(tensor: Tensor, width: int) -> Tensor:
    """Zeros before dimension -2 (tokens) up to `width`."""
    missing = width - tensor.shape[-2]
    return torch.nn.functional.pad(tensor, (0, 0, missing, 0)) if missing else tensor
