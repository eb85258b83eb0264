"""Soft prompts in memory: what fills the cache before a sequence's first token.

Virtual tokens stand at positions 0..v-1, as in peft, and the prompt begins at v. A prefix brings
its keys and values; of a prompt's embeddings the decoder computes them, once. Knows tensors and
pages; verifying the files is `bundle.py`'s, who begins with them is the scheduler's business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.adapters import virtual_tokens
from engine.adapters.bundle import CONFIG, WEIGHTS
from engine.errors import InvalidBundle
from engine.kernels.interface import AttentionMetadata, Heads
from engine.models.decoder import CheckpointLayout, Decoder
from engine.serving.kv_cache import BlockTable, PagedCache


@dataclass(frozen=True, slots=True)
class KeyValuePrefix:
    """Prefix tuning."""

    keys: Tensor  # (layers, v, kv heads, head dimension), channels in our decoder's order
    values: Tensor  # (layers, v, kv heads, head dimension)

    @property
    def tokens(self) -> int:
        """How many virtual tokens."""
        return self.keys.shape[1]

    def fill(
        self, decoder: Decoder, cache: PagedCache, block_table: BlockTable, begin: int, end: int
    ) -> None:
        """Put virtual tokens begin..end into the pages of a block table."""
        slots = block_table.slots(begin, end)
        cache.put(slots.to(self.keys.device), self.keys[:, begin:end], self.values[:, begin:end])


@dataclass(frozen=True, slots=True)
class PromptEmbeddings:
    """Prompt tuning and P-tuning."""

    embeddings: Tensor  # (v, hidden size) float32

    @property
    def tokens(self) -> int:
        """How many virtual tokens."""
        return len(self.embeddings)

    def fill(
        self, decoder: Decoder, cache: PagedCache, block_table: BlockTable, begin: int, end: int
    ) -> None:
        """Compute virtual tokens begin..end into the pages; those before them are there."""
        device = self.embeddings.device
        cos, sin = decoder.angles(torch.arange(begin, end, device=device)[:, None])
        step = AttentionMetadata(
            torch.tensor([(0, end - begin, begin, 0)]),
            torch.tensor([block_table.pages], dtype=torch.int32),
            block_table.slots(begin, end).to(device),
            cos,
            sin,
        )
        decoder.run(self.embeddings[begin:end].clone(), step, cache.layers)


SoftPrompt = KeyValuePrefix | PromptEmbeddings


def is_soft_prompt(folder: Path) -> bool:
    """Whether a PEFT folder holds one; raises `InvalidBundle` where that cannot be told."""
    return _peft_type(folder) in virtual_tokens.KINDS


def read_soft_prompt(
    folder: Path, base: Path, heads: Heads, layout: CheckpointLayout, *, device: str
) -> SoftPrompt:
    """Read a *verified* PEFT folder for the checkpoint in `base`.

    Raises `InvalidBundle` for one that cannot be run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    kind, reason = _peft_type(folder), virtual_tokens.why_not_served_by(base)
    if reason is not None:
        raise InvalidBundle([f"peft_type is {kind!r}: {reason}"])
    try:
        saved = load_file(folder / WEIGHTS)[virtual_tokens.KEY].float()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidBundle([f"it cannot be read: {error}"]) from error
    expected = virtual_tokens.prompt_sizes(base).shape(kind, len(saved))
    if tuple(saved.shape) != expected:
        raise InvalidBundle([f"{virtual_tokens.KEY} has shape {tuple(saved.shape)}"])
    if kind == virtual_tokens.PREFIX:
        return _prefix(saved.to(device), heads, layout)
    return PromptEmbeddings(saved.to(device))


def _prefix(saved: Tensor, heads: Heads, layout: CheckpointLayout) -> KeyValuePrefix:
    """peft keeps, for each token, the key and then the value of one layer after the other."""
    tokens, layers = len(saved), len(layout.layers)
    pairs = saved.view(tokens, layers, 2, heads.kv, heads.dim).transpose(0, 1)
    orders = torch.stack([_key_order(layout, layer, heads) for layer in range(layers)])
    orders = orders.to(saved.device)[:, None, None].expand(layers, tokens, heads.kv, heads.dim)
    return KeyValuePrefix(pairs[:, :, 0].gather(-1, orders), pairs[:, :, 1].contiguous())


def _key_order(layout: CheckpointLayout, layer: int, heads: Heads) -> Tensor:
    """Which of the checkpoint's channels each channel of a key head is (`LinearSpec.rows`)."""
    rows = torch.cat(
        [
            torch.arange(module.out_features) if module.rows is None else module.rows
            for module in layout.layers[layer].qkv
        ]
    )
    first = heads.query * heads.dim
    return rows[first : first + heads.dim] % heads.dim


def _peft_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / CONFIG).read_text("utf-8"))["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidBundle([f"{CONFIG} cannot be read: {error}"]) from error
