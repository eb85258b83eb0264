"""A batch of rows that decode together over one left-padded key-value cache.

It works with any decoder-only model of transformers, since it uses the interface of its caches and
the attention mask alone. Knows nothing of sampling, adapters or streams.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SPARE_TOKENS = 64


class SpareRoomLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A dynamic cache layer with spare room, so that a step writes one token a row.

    The layer of transformers copies all its keys and values at each step.
    """

    keys: Tensor
    values: Tensor
    _rooms: tuple[Tensor, Tensor] | None = None  # each (rows, heads, capacity, head dimension)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new tokens (rows, heads, new tokens, head dimension); returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self._rooms is None or self._rooms[0].shape[-2] < end:
            capacity = end + max(SPARE_TOKENS, end // 2)
            self._rooms = (
                _with_room(self.keys, key_states, begin, capacity),
                _with_room(self.values, value_states, begin, capacity),
            )
        keys, values = self._rooms
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Replace all keys and values."""
        self.keys, self.values, self._rooms = keys, values, None


def new_cache() -> Cache:
    """An empty cache for one row."""
    return Cache(layer_class_to_replicate=SpareRoomLayer)


class RowBatch:
    """The cache and mask of the running rows; row i of every tensor is row i of the caller's list.

    mask  # (rows, tokens), 1 where the cache holds a token of the row, 0 where it is padding
    """

    def __init__(self) -> None:
        self.cache: Any = None
        self.mask = torch.zeros(0, 0, dtype=torch.long)

    def join(self, cache: Cache) -> None:
        """Append one prefilled row."""
        row_mask = torch.ones(1, cache.get_seq_length(), dtype=torch.long)
        if self.cache is None:
            self.cache, self.mask = cache, row_mask
            return
        width = max(self.mask.shape[1], row_mask.shape[1])
        for ours, theirs in zip(self.cache.layers, cache.layers, strict=True):
            ours.replace(
                torch.cat([_pad_left(ours.keys, width), _pad_left(theirs.keys, width)]),
                torch.cat([_pad_left(ours.values, width), _pad_left(theirs.values, width)]),
            )
        self.mask = torch.cat(
            [_pad_left(mask[..., None], width)[..., 0] for mask in (self.mask, row_mask)]
        )

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows, and the padding that no row needs any more."""
        if not rows or self.cache is None:
            self.cache, self.mask = None, torch.zeros(0, 0, dtype=torch.long)
            return
        mask = self.mask[rows]
        padding = int(mask.argmax(dim=1).min())  # every row has a token; the first is its first 1
        self.mask = mask[:, padding:]
        for layer in self.cache.layers:
            layer.replace(layer.keys[rows, :, padding:], layer.values[rows, :, padding:])

    def grow(self) -> tuple[Tensor, Tensor]:
        """Make room for one token a row; returns the mask and the new positions (rows, 1)."""
        self.mask = torch.cat([self.mask, torch.ones(len(self.mask), 1, dtype=torch.long)], dim=1)
        return self.mask, self.mask.sum(dim=1, keepdim=True) - 1


def _with_room(old: Tensor, new: Tensor, tokens: int, capacity: int) -> Tensor:
    """A buffer like `new` with room for `capacity` tokens, holding the old ones."""
    room = new.new_empty(*new.shape[:2], capacity, new.shape[-1])
    if tokens:
        room[:, :, :tokens] = old
    return room


def _pad_left(tensor: Tensor, width: int) -> Tensor:
    """Zeros before dimension -2 (tokens) up to `width`."""
    missing = width - tensor.shape[-2]
    return torch.nn.functional.pad(tensor, (0, 0, missing, 0)) if missing else tensor
