"""The decoder: the forward pass of a transformer, for every family of `families.py`.

A family says which tensors of its checkpoint are which (`CheckpointLayout`) and how its blocks
differ (`DecoderConfig`); this module computes. It knows nothing of text, requests, batching or
files of adapters. Rows of a step belong to any number of sequences, which attention alone sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import AttentionMetadata, Heads, Kernels, LayerCache


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The computation of a family's blocks.

    block: `pre_norm` (LLaMA): h + f(norm(h)); `sandwich_norm` (GLM-4): h + norm(f(norm(h)));
    `scaled_norm` (ChatGLM-6B): a = norm(h), then alpha a + f(a).
    rotary_frequencies: radians by which one position rotates each pair of channels; with two
    position channels (ChatGLM-6B) the first half belongs to the first.
    numbers_key_prefix: whether a trained prefix of keys and values takes the first positions, as in
    transformers; in the published code of ChatGLM the prompt begins at 0 all the same.
    """

    hidden_size: int
    layer_count: int
    heads: Heads
    vocabulary: int
    context_tokens: int
    eps: float
    rotary_frequencies: tuple[float, ...]
    rotary_scale: float = 1.0  # of cosine and sine (YaRN's attention factor)
    position_channels: int = 1
    norm: Literal["rms", "layer"] = "rms"
    activation: Literal["gated_silu", "gelu"] = "gated_silu"
    block: Literal["pre_norm", "sandwich_norm", "scaled_norm"] = "pre_norm"
    residual_scale: float = 1.0
    prefix_lm: bool = False
    numbers_key_prefix: bool = True

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, rotated / 2) for positions (T, position channels)."""
        frequencies = torch.tensor(self.rotary_frequencies, device=positions.device)
        each = positions.float().repeat_interleave(
            len(frequencies) // self.position_channels, dim=1
        )
        angles = each * frequencies
        scale = self.rotary_scale
        return (angles.cos() * scale).contiguous(), (angles.sin() * scale).contiguous()


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """A linear module of the checkpoint; `rows` is the order in which its outputs are taken."""

    name: str
    out_features: int
    in_features: int
    rows: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """The modules of a layer by their names in the checkpoint; those of one matrix are fused.

    qkv gives queries, keys and values side by side, each head's rotary pairs (i, i + rotated / 2);
    up gives gate and up side by side where the activation is gated.
    """

    qkv: tuple[LinearSpec, ...]
    out: LinearSpec
    up: tuple[LinearSpec, ...]
    down: LinearSpec
    input_norm: str
    mlp_norm: str
    query_norm: str | None = None
    key_norm: str | None = None
    after_attention_norm: str | None = None
    after_mlp_norm: str | None = None

    @property
    def linears(self) -> tuple[tuple[LinearSpec, ...], ...]:
        """The four matrices, in the order of `LINEARS`."""
        return (self.qkv, (self.out,), self.up, (self.down,))


LINEARS = ("qkv", "out", "up", "down")


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """The names of a family's tensors in its checkpoints."""

    embedding: str
    layers: tuple[LayerSpec, ...]
    final_norm: str
    head: str
    tied: bool  # the head is the embedding, transposed, unless the checkpoint has another


class Linear(Protocol):
    """The interface of a matrix, dense or quantized (`engine.quantization`)."""

    out_features: int
    in_features: int

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, in) -> (T, out); with `add_to` (T, out), added to it in place."""

    @property
    def weight_bytes(self) -> int:
        """Bytes in memory."""


class Embedding(Linear, Protocol):
    """The interface of a matrix whose rows can be looked up."""

    def rows(self, ids: Tensor) -> Tensor:
        """The weights of some outputs: ids (n,) -> (n, in) float32."""


Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class RmsNorm:
    """Zhang & Sennrich 2019."""

    kernels: Kernels
    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(..., n) -> (..., n)."""
        return self.kernels.rms_norm(x, self.weight, self.eps)


@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm:
    """Ba et al. 2016."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(..., n) -> (..., n)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block."""

    qkv: Linear
    out: Linear
    up: Linear
    down: Linear
    input_norm: Norm
    mlp_norm: Norm
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    after_attention_norm: Norm | None = None
    after_mlp_norm: Norm | None = None


class RowAdapters(Protocol):
    """The interface of the low-rank updates of a step's rows (`StepAdapters`)."""

    @property
    def address(self) -> int | None:
        """Address of the table for the compiled kernels; None if they are not held for those."""

    def add(self, layer: int, linear: str, x: Tensor, y: Tensor) -> None:
        """y (T, out) += B (A x) for each row of x (T, in)."""


class FusedLayers(Protocol):
    """The interface of all layers in one call (`engine.models.fused`)."""

    def __call__(
        self,
        hidden: Tensor,
        metadata: AttentionMetadata,
        cache: Sequence[LayerCache],
        adapters: RowAdapters | None,
    ) -> None:
        """Run hidden (T, hidden size) through all layers, in place."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model in memory."""

    config: DecoderConfig
    kernels: Kernels
    embedding: Embedding
    layers: Sequence[Layer]
    final_norm: Norm
    head: Linear
    fused: FusedLayers | None = None  # the layers in one call, where that is possible

    def __call__(
        self,
        ids: Tensor,
        metadata: AttentionMetadata,
        cache: Sequence[LayerCache],
        wanted: Tensor,
        adapters: RowAdapters | None = None,
    ) -> Tensor:
        """Logits (wanted, vocabulary) of the rows `wanted` of ids (T,); fills the cache."""
        return self.head(self.last_hidden_states(ids, metadata, cache, wanted, adapters))

    def last_hidden_states(
        self,
        ids: Tensor,
        metadata: AttentionMetadata,
        cache: Sequence[LayerCache],
        wanted: Tensor,
        adapters: RowAdapters | None = None,
    ) -> Tensor:
        """The head's input, (wanted, hidden size), after the final norm; fills the cache."""
        hidden = self.run(self.embedding.rows(ids), metadata, cache, adapters)
        return self.final_norm(hidden[wanted])

    def run(
        self,
        hidden: Tensor,
        metadata: AttentionMetadata,
        cache: Sequence[LayerCache],
        adapters: RowAdapters | None = None,
    ) -> Tensor:
        """Run input embeddings (T, hidden size), which may be overwritten, through all layers.

        Fills the cache. Returns the hidden states before the final norm.
        """
        if self.fused is not None and (adapters is None or adapters.address is not None):
            self.fused(hidden, metadata, cache, adapters)
        else:
            hidden = self._blocks(hidden, metadata, cache, adapters)
        return hidden

    def _blocks(
        self,
        hidden: Tensor,
        metadata: AttentionMetadata,
        cache: Sequence[LayerCache],
        adapters: RowAdapters | None,
    ) -> Tensor:
        block = BLOCKS[self.config.block]
        for index, layer in enumerate(self.layers):
            run = _LayerRun(self, index, layer, metadata, cache[index], adapters)
            hidden = block(run, hidden)
        return hidden

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `DecoderConfig.angles`."""
        return self.config.angles(positions)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all matrices."""
        each = [m for layer in self.layers for m in (layer.qkv, layer.out, layer.up, layer.down)]
        tied = self.head is self.embedding
        return sum(m.weight_bytes for m in each) + self.head.weight_bytes * (1 if tied else 2)


@dataclass(frozen=True, slots=True)
class _LayerRun:
    """The computation of one layer in one step."""

    decoder: Decoder
    index: int
    layer: Layer
    metadata: AttentionMetadata
    cache: LayerCache
    adapters: RowAdapters | None

    def attention(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, hidden) -> (T, hidden)."""
        heads, kernels = self.decoder.config.heads, self.decoder.kernels
        qkv = self._linear("qkv", x)
        if self.layer.query_norm and self.layer.key_norm:
            rows = qkv.view(len(qkv), -1, heads.dim)
            queries, keys = rows[:, : heads.query], rows[:, heads.query : heads.query + heads.kv]
            queries.copy_(self.layer.query_norm(queries.contiguous()))
            keys.copy_(self.layer.key_norm(keys.contiguous()))
        kernels.rotate_and_store(qkv, heads, self.metadata, self.cache)
        seen = kernels.attention(qkv, heads, self.metadata, self.cache)
        return self._linear("out", seen, add_to)

    def mlp(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, hidden) -> (T, hidden)."""
        up = self._linear("up", x)
        if self.decoder.config.activation == "gated_silu":
            inner = self.decoder.kernels.gated_silu(up)
        else:
            inner = F.gelu(up, approximate="tanh")
        return self._linear("down", inner, add_to)

    def _linear(self, name: str, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        y: Tensor = getattr(self.layer, name)(x, add_to)
        if self.adapters is not None:
            self.adapters.add(self.index, name, x, y)
        return y


def _pre_norm(run: _LayerRun, h: Tensor) -> Tensor:
    h = run.attention(run.layer.input_norm(h), add_to=h)
    return run.mlp(run.layer.mlp_norm(h), add_to=h)


def _sandwich_norm(run: _LayerRun, h: Tensor) -> Tensor:
    assert run.layer.after_attention_norm
    assert run.layer.after_mlp_norm
    h = h + run.layer.after_attention_norm(run.attention(run.layer.input_norm(h)))
    return h + run.layer.after_mlp_norm(run.mlp(run.layer.mlp_norm(h)))


def _scaled_norm(run: _LayerRun, h: Tensor) -> Tensor:
    alpha = run.decoder.config.residual_scale
    a = run.layer.input_norm(h)
    x = run.attention(a, add_to=a * alpha)
    m = run.layer.mlp_norm(x)
    return run.mlp(m, add_to=m * alpha)


BLOCKS: dict[str, Callable[[_LayerRun, Tensor], Tensor]] = {
    "pre_norm": _pre_norm,
    "sandwich_norm": _sandwich_norm,
    "scaled_norm": _scaled_norm,
}
