"""The tensors of a GGUF file: their names, the order of their rows, and their blocks.

This is `engine.models.gguf` the other way round, with its tables. Knows no settings of models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import InvalidInput
from engine.models.gguf import IN_LAYER, LAYOUTS, OUTSIDE_LAYERS
from engine.models.loading import quantize_in_slabs
from engine.quantization.groups import GROUP, QuantizedMatrix, quantize_int4, quantize_int8

F32, F16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16
Q8_0, Q4_1 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_1
DENSE = {F32: np.float32, F16: np.float16}
BLOCK_BITS = {Q8_0: 8, Q4_1: 4}
MODULES_IN_LAYER = {theirs: ours for ours, theirs in IN_LAYER.items()}
MODULES_OUTSIDE = {theirs: ours for ours, theirs in OUTSIDE_LAYERS.items()}
TENSOR_IN_LAYER = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<module>.+)")
VOCABULARIES = tuple(OUTSIDE_LAYERS[part] for part in ("token_embd", "output"))


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor to be written: `encode` makes its data when its turn comes."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    encode: Callable[[], NDArray[Any]]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the data: that of the values, or for blocks (rows, bytes of a row)."""
        if self.kind in DENSE:
            return self.shape
        block_weights, block_bytes = GGML_QUANT_SIZES[self.kind]
        return self.shape[0], self.shape[1] // block_weights * block_bytes


def write_file(writer: GGUFWriter, file: Path, tensors: Iterable[GgufTensor]) -> None:
    """Write a file with the metadata of `writer`, one tensor in memory at a time."""
    tensors = list(tensors)
    for tensor in tensors:
        dtype = np.dtype(DENSE.get(tensor.kind, np.uint8))
        stored = tensor.stored_shape
        size = int(np.prod(stored)) * dtype.itemsize
        writer.add_tensor_info(tensor.name, stored, dtype, size, raw_dtype=tensor.kind)
    writer.write_header_to_file(file)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    (out,) = writer.fout
    for tensor in tensors:
        data = np.ascontiguousarray(tensor.encode())
        assert data.shape == tensor.stored_shape, tensor.name
        writer.write_padding(out, out.tell())
        # Not `write_tensor_data`: numpy's tofile does not say that the disk is full
        out.write(data.data)
        writer.write_padding(out, data.nbytes)
    writer.close()


def gguf_module(module: str) -> str:
    """The name of a module of a Hugging Face checkpoint in GGUF; raises `InvalidInput`."""
    match = TENSOR_IN_LAYER.fullmatch(module)
    part = MODULES_OUTSIDE.get(module) if match is None else MODULES_IN_LAYER.get(match["module"])
    if part is None:
        raise InvalidInput(f"GGUF has no name for its tensor {module}")
    return part if match is None else f"blk.{match['layer']}.{part}"


def kind_of_tensor(module: str, shape: tuple[int, ...], quantization: str) -> GGMLQuantizationType:
    """The type in which a tensor is written.

    Vectors are F32, as llama.cpp computes with them. Vocabularies have at least 8 bits, as the
    engine serves them; a matrix whose rows are no whole blocks is F16.
    """
    if len(shape) < 2:
        return F32
    if quantization == "f16" or shape[1] % GROUP:
        return F16
    return Q8_0 if quantization == "q8_0" or module in VOCABULARIES else Q4_1


def encode_tensor(
    name: str, weight: Tensor, kind: GGMLQuantizationType, *, heads: int | None = None
) -> NDArray[Any]:
    """The data of a dense tensor; quantized, it is what the engine serves with as many bits.

    `heads`: see `interleave`. Raises `InvalidInput` for a weight beyond the range of float16.
    """
    if kind in BLOCK_BITS:
        quantize = quantize_int8 if kind == Q8_0 else quantize_int4
        return encode_blocks(quantize_in_slabs(quantize, weight), heads=heads)
    data = weight.to(torch.float16 if kind == F16 else torch.float32)
    if not data.isfinite().all():
        raise InvalidInput(f"{name} has weights beyond 65504, the end of float16")
    return interleave(data.numpy(), heads)


def encode_blocks(matrix: QuantizedMatrix, *, heads: int | None = None) -> NDArray[np.uint8]:
    """Groups of codes as Q4_1 or Q8_0, exactly: (rows, bytes of a row); `heads`: `interleave`."""
    layout = LAYOUTS[Q8_0 if matrix.mins is None else Q4_1]
    rows, groups = matrix.scales.shape
    blocks = np.empty((rows, groups), layout)
    codes = matrix.codes.numpy().reshape(rows, groups, GROUP)
    blocks["scale"] = matrix.scales.numpy()
    if matrix.mins is None:
        blocks["codes"] = codes
    else:
        blocks["min"] = matrix.mins.numpy()
        blocks["codes"] = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4
    return interleave(blocks, heads).view(np.uint8)


def interleave(rows: NDArray[Any], heads: int | None) -> NDArray[Any]:
    """Put the two rows of each rotary pair side by side, in a matrix or vector of `heads` heads.

    Hugging Face checkpoints have rows i and i + dim / 2 of a head as a pair, LLaMA's GGUF files
    rows 2i and 2i + 1. With None the rows stay as they are.
    """
    if heads is None:
        return rows
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])  # (head, first or second, pair, ...)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)
