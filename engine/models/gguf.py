"""GGUF files as checkpoints: tensors by Hugging Face names, quantized groups as in the file.

Knows the block layouts that are carried over exactly (Q4_0, Q4_1, Q8_0), the names of tensors in
GGUF, and the order of the rows of rotary heads there. Other types that the gguf package can
dequantize become dense. Knows nothing of how a model computes: `gguf_metadata.py` reads that from
the metadata into the `config.json` of the converted folder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, ReaderTensor, quants
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import ModelUnavailable
from engine.models.gguf_metadata import ROPE_TENSORS, GgufSettings, read_settings
from engine.quantization.groups import QuantizedMatrix

# Architecture -> whether rows 2i and 2i + 1 of a head are a rotary pair; otherwise rows i and
# i + head_dim / 2 are, as in Hugging Face checkpoints. Mistral's files say "llama".
INTERLEAVED = {"llama": True, "qwen2": False, "qwen3": False}
OUTSIDE_LAYERS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TENSOR_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.(?P<kind>weight|bias)")

# One block of 32 weights. Byte i of 4-bit codes holds weight i (low) and weight i + 16 (high).
LAYOUTS = {
    GGMLQuantizationType.Q4_0: np.dtype([("scale", "<f2"), ("codes", "u1", (16,))]),
    GGMLQuantizationType.Q4_1: np.dtype([("scale", "<f2"), ("min", "<f2"), ("codes", "u1", (16,))]),
    GGMLQuantizationType.Q8_0: np.dtype([("scale", "<f2"), ("codes", "i1", (32,))]),
}
Q4_0_ZERO = 8  # the code of weight 0

ARRAY_HEAD = struct.Struct("<IQ")  # type of the items, their number
LENGTH = struct.Struct("<Q")  # of a string, in bytes
SHORT_ARRAY = 256  # items: lists of end tokens, settings by layer


class GgufCheckpoint:
    """Implements `Checkpoint` with one memory-mapped GGUF file and a given configuration.

    Raises `ModelUnavailable` for a file that cannot be read, an unknown architecture, or a tensor
    without a Hugging Face name, which would be left out of the model silently.
    """

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        self.config = config
        self._file = file
        reader = _open(file)
        architecture = _architecture(reader, file)
        if architecture not in INTERLEAVED:
            raise ModelUnavailable(
                f"cannot use {file}: its architecture is {architecture!r}; the known ones are "
                + ", ".join(INTERLEAVED)
            )
        self._heads: dict[str, int] = {}  # of the parts whose rows are interleaved
        if INTERLEAVED[architecture]:
            self._heads = _head_counts(reader, architecture, file)
        self._stored = {
            _hugging_face_name(tensor.name, file): tensor
            for tensor in reader.tensors
            if tensor.name not in ROPE_TENSORS  # they are in config.json
        }
        self.names = frozenset(self._stored)

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`. F32, F16 and BF16 as stored, everything else dequantized to float32.

        Raises `ModelUnavailable` also for a type that the gguf package cannot dequantize.
        """
        stored = self._find(name)
        data, kind = self._rows(stored), stored.tensor_type
        if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            return torch.from_numpy(np.array(data))
        if kind == GGMLQuantizationType.BF16:
            return torch.from_numpy(np.array(data)).view(torch.bfloat16)
        try:
            return torch.from_numpy(quants.dequantize(data, kind))
        except NotImplementedError as error:
            raise ModelUnavailable(
                f"cannot dequantize {stored.name} in {self._file}: its type is {kind.name}"
            ) from error

    def blocks(self, name: str) -> QuantizedMatrix | None:
        """See `Checkpoint`. None also for a Q4_0 tensor whose mins overflow float16."""
        stored = self._find(name)
        layout = LAYOUTS.get(stored.tensor_type)
        if layout is None or stored.data.ndim != 2:
            return None
        return _blocks(self._rows(stored).view(layout))

    def _find(self, name: str) -> ReaderTensor:
        if name not in self._stored:
            raise ModelUnavailable(f"the model in {self._file} has no tensor {name!r}")
        return self._stored[name]

    def _rows(self, stored: ReaderTensor) -> NDArray[Any]:
        """The data of the file (blocks as bytes), with the rows in Hugging Face order."""
        data = np.asarray(stored.data)
        heads = self._heads.get(stored.name.split(".")[-2])
        if heads is None:
            return data
        if data.shape[0] % (2 * heads):
            raise ModelUnavailable(
                f"cannot read {stored.name} in {self._file}: "
                f"{data.shape[0]} rows are not {heads} heads of rotary pairs"
            )
        pairs = data.reshape(heads, -1, 2, *data.shape[1:])  # (head, pair, first or second, ...)
        return pairs.swapaxes(1, 2).reshape(data.shape)


def gguf_settings(file: Path) -> GgufSettings:
    """Read the file's settings, and check that every setting and tensor is understood.

    Raises `ModelUnavailable` with every setting and the first tensor that would be left out.
    """
    reader = _open(file)
    architecture = _architecture(reader, file)
    ours = architecture in INTERLEAVED
    try:
        settings = read_settings(reader, architecture, ours=ours)
    except ModelUnavailable as error:
        raise ModelUnavailable(f"cannot use {file}: {error}") from error
    if ours:
        GgufCheckpoint(file, {})  # raises on an unknown tensor
    return settings


class _Reader(GGUFReader):
    """The reader of the gguf package, except that it skips long arrays: the vocabulary.

    To parse them takes seconds, and with a corrupt length all memory.
    """

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[NDArray[Any]], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        data = self.data.data
        raw_item, count = ARRAY_HEAD.unpack_from(data, orig_offs)
        item, end = GGUFValueType(raw_item), int(orig_offs) + ARRAY_HEAD.size
        if item == GGUFValueType.STRING:
            for _ in range(count):
                end += LENGTH.size + LENGTH.unpack_from(data, end)[0]
        else:
            end += count * np.dtype(self.gguf_scalar_to_np[item]).itemsize
        if end > len(data):
            raise ValueError("an array goes on after the end of the file")
        if count <= SHORT_ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        return end - int(orig_offs), [], [], [GGUFValueType.ARRAY]


def _open(file: Path) -> GGUFReader:
    try:
        reader = _Reader(file)
    except (OSError, ValueError, LookupError, OverflowError, TypeError, struct.error) as error:
        raise ModelUnavailable(
            f"cannot read {file}: it is missing, truncated or not GGUF ({error})"
        ) from error
    if reader.byte_order != "I":
        raise ModelUnavailable(f"cannot read {file}: it was made for the other byte order")
    empty = [tensor.name for tensor in reader.tensors if tensor.data.size == 0]
    if empty:
        raise ModelUnavailable(f"cannot read {file}: its tensor {empty[0]!r} is empty")
    return reader


def _metadata(reader: GGUFReader, key: str, file: Path) -> Any:
    field = reader.get_field(key)
    try:
        return None if field is None else field.contents()
    except ValueError as error:
        raise ModelUnavailable(f"cannot read {file}: its {key} is not text ({error})") from error


def _architecture(reader: GGUFReader, file: Path) -> str:
    architecture = _metadata(reader, "general.architecture", file)
    if not isinstance(architecture, str):
        raise ModelUnavailable(f"cannot use {file}: its architecture is {architecture!r}")
    return architecture


def _head_counts(reader: GGUFReader, architecture: str, file: Path) -> dict[str, int]:
    """The numbers of query and key heads, which are equal unless the file gives both."""
    heads = _metadata(reader, f"{architecture}.attention.head_count", file)
    kv_heads = _metadata(reader, f"{architecture}.attention.head_count_kv", file)
    counts = {"attn_q": heads, "attn_k": heads if kv_heads is None else kv_heads}
    if not all(isinstance(count, int) and count > 0 for count in counts.values()):
        raise ModelUnavailable(f"cannot use {file}: it gives no usable attention.head_count")
    return counts


def _hugging_face_name(name: str, file: Path) -> str:
    match = TENSOR_NAME.fullmatch(name)
    layer, part = (match["layer"], match["part"]) if match else (None, "")
    prefix = "" if layer is None else f"model.layers.{layer}."
    translated = (OUTSIDE_LAYERS if layer is None else IN_LAYER).get(part)
    if match is None or translated is None:
        raise ModelUnavailable(f"cannot use {file}: there is no place for its tensor {name!r}")
    return f"{prefix}{translated}.{match['kind']}"


def _blocks(raw: NDArray[Any]) -> QuantizedMatrix | None:
    """The groups (out_features, groups) of one of `LAYOUTS`, as codes, scales and mins."""
    fields = raw.dtype.names or ()
    scales = torch.from_numpy(np.array(raw["scale"]))
    codes = np.array(raw["codes"])  # (out, groups, 16 bytes of two codes or 32 codes)
    if codes.dtype == np.int8:
        return QuantizedMatrix(torch.from_numpy(codes).flatten(1), scales, mins=None, bits=8)
    unpacked = np.concatenate([codes & 15, codes >> 4], axis=2)
    mins = torch.from_numpy(np.array(raw["min"])) if "min" in fields else -Q4_0_ZERO * scales
    if "min" not in fields and not mins.isfinite().all():
        return None
    return QuantizedMatrix(torch.from_numpy(unpacked).flatten(1), scales, mins, bits=4)
