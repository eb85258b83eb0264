"""The loading of a decoder from a checkpoint: one matrix at a time, and a few rows of it at once.

So loading needs little more memory than the result. Knows how matrices are fused and quantized;
knows nothing of what a family computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from engine.errors import ModelUnavailable
from engine.models.architecture import Architecture
from engine.models.checkpoint import Checkpoint
from engine.models.decoder import (
    CheckpointLayout,
    Decoder,
    DecoderConfig,
    Embedding,
    Layer,
    LayerNorm,
    LayerSpec,
    Linear,
    LinearSpec,
    Norm,
    RmsNorm,
)
from engine.models.fused import NativeLayers
from engine.models.kernel_selection import KernelChoice
from engine.quantization import Quantization
from engine.quantization.dense import DenseLinear
from engine.quantization.groups import QuantizedMatrix, quantize_int4, quantize_int8
from engine.quantization.packed_cpu import NativeLinear, TorchInt4Linear, TorchInt8Linear

# Weights that are rounded at once: with all intermediate values they fit into a core's cache
SLAB_WEIGHTS = 1 << 17


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """The format of matrices in memory: quantization, device, dtype and kernels."""

    quantization: Quantization
    device: str
    dtype: torch.dtype
    kernels: KernelChoice


def load_decoder(
    checkpoint: Checkpoint, architecture: Architecture, weight_format: WeightFormat
) -> Decoder:
    """Read every weight; raises `ModelUnavailable` for one that is missing or unreadable."""
    reader = _Reader(checkpoint, architecture.config, weight_format)
    layout = architecture.layout
    # The largest first: their temporary copies take less than the layers that follow
    own_head = has_own_head(checkpoint, layout)
    embedding = reader.embedding(_embedding(checkpoint, layout))
    head = reader.embedding(layout.head) if own_head else embedding
    layers = [reader.layer(names) for names in layout.layers]
    native, config = weight_format.kernels.native, architecture.config
    fused = None
    if native is not None and NativeLayers.covers(config, layers):
        fused = NativeLayers(native, config, layers)
    return Decoder(
        config,
        weight_format.kernels.kernels,
        embedding,
        layers,
        reader.norm(layout.final_norm),
        head,
        fused,
    )


def has_own_head(checkpoint: Checkpoint, layout: CheckpointLayout) -> bool:
    """Return whether the output head is a matrix of its own.

    As in transformers 5, a configuration that ties it to the embedding counts unless the checkpoint
    has both and they differ. Tuning and export load through transformers, so all agree.
    """
    names = [f"{layout.head}.weight", f"{layout.embedding}.weight"]
    if not layout.tied:
        return True
    if not checkpoint.names.issuperset(names):
        return False
    head, embedding = (checkpoint.tensor(name) for name in names)
    alike = (head.dtype, head.shape) == (embedding.dtype, embedding.shape)
    return not (alike and torch.equal(head, embedding))


def _embedding(checkpoint: Checkpoint, layout: CheckpointLayout) -> str:
    """The module that holds the embedding; a checkpoint may store the head of a tied pair."""
    stored = f"{layout.embedding}.weight" in checkpoint.names
    return layout.embedding if stored or not layout.tied else layout.head


@dataclass(frozen=True, slots=True)
class _Reader:
    checkpoint: Checkpoint
    config: DecoderConfig
    weight_format: WeightFormat

    def layer(self, names: LayerSpec) -> Layer:
        def optional(name: str | None, width: int | None = None) -> Norm | None:
            return None if name is None else self.norm(name, width)

        return Layer(
            qkv=self.linear(names.qkv),
            out=self.linear([names.out]),
            up=self.linear(names.up),
            down=self.linear([names.down]),
            input_norm=self.norm(names.input_norm),
            mlp_norm=self.norm(names.mlp_norm),
            query_norm=optional(names.query_norm, self.config.heads.dim),
            key_norm=optional(names.key_norm, self.config.heads.dim),
            after_attention_norm=optional(names.after_attention_norm),
            after_mlp_norm=optional(names.after_mlp_norm),
        )

    def norm(self, name: str, width: int | None = None) -> Norm:
        """A norm over `width` channels, the hidden size where None is given."""
        width = width or self.config.hidden_size
        device = self.weight_format.device
        # Copied, so that it does not keep its whole shard mapped
        weight = self._dense(f"{name}.weight", width).to(device, torch.float32, copy=True)
        if self.config.norm == "layer":
            bias = self._dense(f"{name}.bias", width).to(device, torch.float32, copy=True)
            return LayerNorm(weight, bias, self.config.eps)
        return RmsNorm(self.weight_format.kernels.kernels, weight, self.config.eps)

    def linear(self, modules: Sequence[LinearSpec]) -> Linear:
        """The fused matrix of some modules; weights that are quantized already stay as they are."""
        bits = {"int4": 4, "int8": 8}.get(self.weight_format.quantization)
        stored = [self.checkpoint.blocks(f"{module.name}.weight") for module in modules]
        kept = []
        for blocks, module in zip(stored, modules, strict=True):
            if blocks is not None and blocks.bits == bits:
                _check_shape(module.name, blocks.codes, (module.out_features, module.in_features))
                kept.append(_take_blocks(blocks, module.rows))
        bias = self._bias(modules)
        if len(kept) == len(modules) and self.weight_format.kernels.native is not None:
            return NativeLinear(self.weight_format.kernels.native, _join(kept), bias)
        weights = [
            _take(self._dense(f"{m.name}.weight", m.out_features, m.in_features), m.rows)
            for m in modules
        ]
        return make_linear(
            weights[0] if len(weights) == 1 else torch.cat(weights), bias, self.weight_format
        )

    def embedding(self, name: str) -> Embedding:
        """The matrix of a vocabulary, with at least 8 bits and dense on a device.

        With fewer bits it would cause most of the error of a small model, and bitsandbytes has no
        look-up of rows.
        """
        quantized = self.weight_format.quantization != "none" and self.weight_format.device == "cpu"
        weight_format = replace(self.weight_format, quantization="int8" if quantized else "none")
        held = _Reader(self.checkpoint, self.config, weight_format).linear([self._vocabulary(name)])
        return cast(Embedding, held)

    def _vocabulary(self, name: str) -> LinearSpec:
        return LinearSpec(name, self.config.vocabulary, self.config.hidden_size)

    def _bias(self, modules: Sequence[LinearSpec]) -> Tensor | None:
        names = [f"{module.name}.bias" for module in modules]
        if not any(name in self.checkpoint.names for name in names):
            return None
        return torch.cat(
            [
                _take(self._dense(name, module.out_features).float(), module.rows)
                for name, module in zip(names, modules, strict=True)
            ]
        )

    def _dense(self, name: str, *shape: int) -> Tensor:
        tensor = self.checkpoint.tensor(name)
        _check_shape(name, tensor, shape)
        return tensor


def make_linear(weight: Tensor, bias: Tensor | None, weight_format: WeightFormat) -> Linear:
    """Convert a dense matrix to a format."""
    if weight_format.quantization == "none":
        return DenseLinear(weight, bias, dtype=weight_format.dtype, device=weight_format.device)
    if weight_format.device != "cpu":
        from engine.quantization.bitsandbytes import BitsLinear

        return BitsLinear(
            weight,
            bias,
            quantization=weight_format.quantization,
            dtype=weight_format.dtype,
            device=weight_format.device,
        )
    native, four = weight_format.kernels.native, weight_format.quantization == "int4"
    if native is None and not four:
        return TorchInt8Linear(weight, bias)
    blocks = quantize_in_slabs(quantize_int4 if four else quantize_int8, weight)
    if native is None:
        return TorchInt4Linear(blocks, bias)
    return NativeLinear(native, blocks, bias, in_features=weight.shape[1])


def quantize_in_slabs(
    quantize: Callable[[Tensor], QuantizedMatrix], weight: Tensor
) -> QuantizedMatrix:
    """Quantize a dense matrix (out, in) a few rows at a time, which gives the same groups."""
    rows = max(1, SLAB_WEIGHTS // weight.shape[1])
    return _join([quantize(slab) for slab in torch.split(weight, rows)])


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor whose shape is not that of config.json, by which the kernels read."""
    if tensor.shape != shape:
        raise ModelUnavailable(f"{name} has shape {tuple(tensor.shape)}, not {shape}")


def _take(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor[rows]


def _take_blocks(blocks: QuantizedMatrix, rows: Tensor | None) -> QuantizedMatrix:
    mins = None if blocks.mins is None else _take(blocks.mins, rows)
    return QuantizedMatrix(_take(blocks.codes, rows), _take(blocks.scales, rows), mins, blocks.bits)


def _join(blocks: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
    mins = [b.mins for b in blocks if b.mins is not None]
    return QuantizedMatrix(
        torch.cat([b.codes for b in blocks]),
        torch.cat([b.scales for b in blocks]),
        torch.cat(mins) if mins else None,
        blocks[0].bits,
    )
