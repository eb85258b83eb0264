"""The tensors of soft prompts: what fills the cache before the first token of a sequence.

Virtual tokens have the positions 0..v-1, as in peft, and the prompt begins at v, unless the
family does not number a prefix (`DecoderConfig.numbers_key_prefix`). A prefix brings its keys and
values; those of a prompt's embeddings the decoder computes, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.adapters.interface import DecoderHost
from engine.kernels.interface import AttentionMetadata, Heads
from engine.models.decoder import CheckpointLayout
from engine.serving.kv_cache import BlockTable


@dataclass(frozen=True, slots=True)
class KeyValuePrefix:
    """Prefix tuning."""

    keys: Tensor  # (layers, v, kv heads, head dimension), channels in our decoder's order
    values: Tensor  # (layers, v, kv heads, head dimension)
    embedded: ClassVar[bool] = False  # whether the virtual tokens are input embeddings

    @property
    def tokens(self) -> int:
        """Number of virtual tokens."""
        return self.keys.shape[1]

    def fill(self, host: DecoderHost, block_table: BlockTable, begin: int, end: int) -> None:
        """Put virtual tokens begin..end into the pages of a block table."""
        slots = block_table.slots(begin, end)
        host.cache.put(
            slots.to(self.keys.device), self.keys[:, begin:end], self.values[:, begin:end]
        )


@dataclass(frozen=True, slots=True)
class PromptEmbeddings:
    """Prompt tuning and P-tuning."""

    embeddings: Tensor  # (v, hidden size) float32
    embedded: ClassVar[bool] = True

    @property
    def tokens(self) -> int:
        """Number of virtual tokens."""
        return len(self.embeddings)

    def fill(self, host: DecoderHost, block_table: BlockTable, begin: int, end: int) -> None:
        """Compute virtual tokens begin..end into the pages; those before them are there."""
        device = self.embeddings.device
        cos, sin = host.decoder.angles(torch.arange(begin, end, device=device)[:, None])
        metadata = AttentionMetadata(
            torch.tensor([(0, end - begin, begin, 0)]),
            torch.tensor([block_table.pages], dtype=torch.int32),
            block_table.slots(begin, end).to(device),
            cos,
            sin,
        )
        host.decoder.run(self.embeddings[begin:end].clone(), metadata, host.cache.layers)


SoftPrompt = KeyValuePrefix | PromptEmbeddings


def key_value_prefix(saved: Tensor, heads: Heads, layout: CheckpointLayout) -> KeyValuePrefix:
    """A prefix as peft saves it: of each token, key and value of one layer after the other."""
    tokens, layers = len(saved), len(layout.layers)
    pairs = saved.view(tokens, layers, 2, heads.kv, heads.dim).transpose(0, 1)
    orders = torch.stack([_key_order(layout, layer, heads) for layer in range(layers)])
    orders = orders.to(saved.device)[:, None, None].expand(layers, tokens, heads.kv, heads.dim)
    return KeyValuePrefix(pairs[:, :, 0].gather(-1, orders), pairs[:, :, 1].contiguous())


def _key_order(layout: CheckpointLayout, layer: int, heads: Heads) -> Tensor:
    """The checkpoint's channel for each channel of a key head (see `LinearSpec.rows`)."""
    rows = torch.cat(
        [
            torch.arange(module.out_features) if module.rows is None else module.rows
            for module in layout.layers[layer].qkv
        ]
    )
    first = heads.query * heads.dim
    return rows[first : first + heads.dim] % heads.dim
