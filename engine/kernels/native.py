"""The compiled kernels: implement `Kernels` on an x86 processor, several times faster than torch.

Short calls keep the interpreter's lock: if they released it a few hundred times a step, any busy
thread could stall the stream for milliseconds each time. `blocks`, one long call a step, releases
it.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_long, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.kernels.interface import AttentionMetadata, Heads, LayerCache

SOURCE = Path(__file__).with_name("cpu.cpp")
THREADS = "-pthread"
P, N = c_void_p, c_long
SIGNATURES = {
    "rms_norm": [P, P, P, N, N, c_float],
    "gated_silu": [P, P, N, N],
    "linear_int4": [P, N, N, P, P, P, N, P, P, c_int],
    "linear_int8": [P, N, N, P, P, N, P, P, c_int],
    "rotate_and_store": [P, N, N, N, N, P, P, N, P, P, P, c_int],
    "attention": [P, N, N, N, P, N, P, N, N, c_float, P, P, c_int, P],
    "lora": [P, N, N, P, N, P, N],
    "start": [N],
}


def _fields(kind: type[Any], *names: str) -> tuple[tuple[str, type[Any]], ...]:
    """Fields of one type for a ctypes structure."""
    return tuple((name, kind) for name in names)


class NativeMatrix(ctypes.Structure):
    """`Matrix` of cpu.cpp."""

    _fields_ = (
        *_fields(N, "bits", "in_features", "out_features"),
        *_fields(P, "codes", "scales", "mins", "bias"),
    )


class NativeBlock(ctypes.Structure):
    """`Block` of cpu.cpp."""

    _fields_ = (
        *_fields(P, "input_norm", "mlp_norm"),
        *_fields(NativeMatrix, "qkv", "out", "up", "down"),
        *_fields(P, "keys", "values"),
    )


class NativeShape(ctypes.Structure):
    """`Shape` of cpu.cpp."""

    _fields_ = (
        *_fields(N, "hidden", "heads", "kv_heads", "dim", "rotated", "window", "halves"),
        ("eps", c_float),
    )


class NativeStep(ctypes.Structure):
    """`Step` of cpu.cpp."""

    _fields_ = (
        *_fields(P, "cos", "sin", "slots", "sequences"),
        ("sequence_count", N),
        ("pages", P),
        ("pages_stride", N),
        ("adapters", P),
    )


class NativeKernels:
    """Implements `Kernels` with a compiled library."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.PyDLL(str(library))
        for name, arguments in SIGNATURES.items():
            function = getattr(self._library, f"burnish_{name}")
            function.argtypes, function.restype = arguments, None
        self._library.burnish_start(torch.get_num_threads())
        self._rms_norm = self._library.burnish_rms_norm
        self._gated_silu = self._library.burnish_gated_silu
        self._rotate_and_store = self._library.burnish_rotate_and_store
        self._attention = self._library.burnish_attention
        self.linear_int4 = self._library.burnish_linear_int4
        self.linear_int8 = self._library.burnish_linear_int8
        self.lora = self._library.burnish_lora
        self._blocks = ctypes.CDLL(str(library)).burnish_blocks
        self._blocks.argtypes, self._blocks.restype = [P, P, N, P, N, P], None

    def blocks(
        self,
        shape: NativeShape,
        table: ctypes.Array[NativeBlock],
        count: int,
        hidden: Tensor,
        step: NativeStep,
    ) -> None:
        """Run hidden (T, hidden size) through `count` blocks, in place."""
        self._blocks(
            ctypes.byref(shape), table, count, hidden.data_ptr(), len(hidden), ctypes.byref(step)
        )

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Kernels`; n is a multiple of 8."""
        y = torch.empty_like(x)
        n = weight.numel()
        self._rms_norm(x.data_ptr(), weight.data_ptr(), y.data_ptr(), x.numel() // n, n, eps)
        return y

    def gated_silu(self, gate_up: Tensor) -> Tensor:
        """See `Kernels`; n is a multiple of 8."""
        rows, width = gate_up.shape
        y = gate_up.new_empty(rows, width // 2)
        self._gated_silu(gate_up.data_ptr(), y.data_ptr(), rows, width // 2)
        return y

    def rotate_and_store(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> None:
        """See `Kernels`."""
        self._rotate_and_store(
            qkv.data_ptr(),
            len(qkv),
            heads.query,
            heads.kv,
            heads.dim,
            metadata.cos.data_ptr(),
            metadata.sin.data_ptr(),
            heads.rotated,
            metadata.slots.data_ptr(),
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            cache.keys.dtype == torch.float16,
        )

    def attention(
        self, qkv: Tensor, heads: Heads, metadata: AttentionMetadata, cache: LayerCache
    ) -> Tensor:
        """See `Kernels`; dim is a multiple of 8."""
        out = qkv.new_empty(len(qkv), heads.query * heads.dim)
        self._attention(
            qkv.data_ptr(),
            heads.query,
            heads.kv,
            heads.dim,
            metadata.sequences.data_ptr(),
            len(metadata.sequences),
            metadata.pages.data_ptr(),
            metadata.pages.shape[1],
            heads.window,
            heads.dim**-0.5,
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            cache.keys.dtype == torch.float16,
            out.data_ptr(),
        )
        return out
