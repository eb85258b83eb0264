"""The operations that a decoder consists of, and the shapes of what they take.

`portable.py` defines each in torch and `native.py` computes the same in compiled code. The T tokens
of one step, of several sequences, lie one after the other (`AttentionMetadata`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

PAGE_TOKENS = 32  # tokens whose keys and values share a page of the cache


@dataclass(frozen=True, slots=True)
class Heads:
    """The shape of attention."""

    query: int
    kv: int
    dim: int
    rotated: int  # leading channels of a head that rotate with the position
    window: int = 0  # tokens that a query attends to, itself included; 0 is all of them

    @property
    def width(self) -> int:
        """Channels of query, key and value side by side."""
        return (self.query + 2 * self.kv) * self.dim


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """The sequences, pages and rotary angles of the T tokens of a step.

    sequences  # (n, 4) int64: first token in the step, tokens, tokens cached before, prefix
    pages      # (n, most pages) int32: the pages of each sequence, in order
    slots      # (T,) int64: page * PAGE_TOKENS + offset, where a token's key and value are stored

    Tokens below `prefix` attend to each other both ways (a prefix language model); 0 is causal.
    """

    sequences: Tensor
    pages: Tensor
    slots: Tensor
    cos: Tensor  # (T, rotated / 2)
    sin: Tensor  # (T, rotated / 2)


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's pages."""

    keys: Tensor  # (pages, kv heads, dim, PAGE_TOKENS)
    values: Tensor  # (pages, kv heads, PAGE_TOKENS, dim)


class Kernels(Protocol):
    """The operations; their inputs and results are float32 and contiguous."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Zhang & Sennrich 2019; x (T, n), weight (n,)."""

    def gated_silu(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up (Shazeer 2020); gate_up (T, 2 n) -> (T, n)."""

    def rotate_and_store(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> None:
        """Rotate queries and keys by their positions, in place; write keys and values to the cache.

        qkv (T, heads.width). Channel i is paired with i + rotated / 2.
        """

    def attention(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> Tensor:
        """Softmax attention of each query over its sequence's cache; (T, query * dim)."""
