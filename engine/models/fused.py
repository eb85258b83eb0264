"""All blocks of a quantized model of the common shape, in one call of the compiled kernels.

It computes what `decoder.py` defines, with the same kernels in the same order, but does not return
to Python after each of them, which would be a third of the time of a step with one row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.kernels.interface import AttentionMetadata, LayerCache
from engine.kernels.native import NativeBlock, NativeKernels, NativeShape, NativeStep
from engine.models.decoder import DecoderConfig, Layer, RmsNorm, RowAdapters
from engine.quantization.packed_cpu import NativeLinear


class NativeLayers:
    """Implements `FusedLayers` with compiled code, over one cache."""

    def __init__(
        self, kernels: NativeKernels, config: DecoderConfig, layers: Sequence[Layer]
    ) -> None:
        heads = config.heads
        self._kernels = kernels
        self._layers = layers  # keeps the memory alive that the table points to
        self._shape = NativeShape(
            hidden=config.hidden_size,
            heads=heads.query,
            kv_heads=heads.kv,
            dim=heads.dim,
            rotated=heads.rotated,
            window=heads.window,
            eps=config.eps,
        )
        self._table = (NativeBlock * len(layers))()
        for entry, layer in zip(self._table, layers, strict=True):
            assert isinstance(layer.input_norm, RmsNorm)
            assert isinstance(layer.mlp_norm, RmsNorm)
            entry.input_norm = layer.input_norm.weight.data_ptr()
            entry.mlp_norm = layer.mlp_norm.weight.data_ptr()
            for name in ("qkv", "out", "up", "down"):
                linear = getattr(layer, name)
                assert isinstance(linear, NativeLinear)
                setattr(entry, name, linear.native())
        self._cache: Sequence[LayerCache] | None = None

    @staticmethod
    def covers(config: DecoderConfig, layers: Sequence[Layer]) -> bool:
        """Return whether the model has the common shape and its matrices are `NativeLinear`s."""
        common = (config.norm, config.block, config.activation) == ("rms", "pre_norm", "gated_silu")
        return common and all(
            isinstance(layer.qkv, NativeLinear) and layer.query_norm is None for layer in layers
        )

    def __call__(
        self,
        hidden: Tensor,
        metadata: AttentionMetadata,
        cache: Sequence[LayerCache],
        adapters: RowAdapters | None,
    ) -> None:
        """Run hidden (T, hidden size) through all blocks, in place; fills the cache."""
        self._point_at(cache)
        native = NativeStep(
            cos=metadata.cos.data_ptr(),
            sin=metadata.sin.data_ptr(),
            slots=metadata.slots.data_ptr(),
            sequences=metadata.sequences.data_ptr(),
            sequence_count=len(metadata.sequences),
            pages=metadata.pages.data_ptr(),
            pages_stride=metadata.pages.shape[1],
            adapters=None if adapters is None else adapters.address,
        )
        self._kernels.blocks(self._shape, self._table, len(self._table), hidden, native)

    def _point_at(self, cache: Sequence[LayerCache]) -> None:
        if self._cache is cache:
            return
        self._cache = cache
        self._shape.halves = cache[0].keys.dtype == torch.float16
        for entry, layer in zip(self._table, cache, strict=True):
            entry.keys, entry.values = layer.keys.data_ptr(), layer.values.data_ptr()
