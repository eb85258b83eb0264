"""The compiled kernels, with the operations and the shapes of `portable.py`.

A width that is not a multiple of a register's lanes is computed by torch: that of some heads, and
of the last tile of some vocabularies.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_long, c_void_p
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from tuning.kernels.portable import Bounds, PortableTuningKernels, SoftmaxSums

P, N, F = c_void_p, c_long, c_float
KERNEL_SIGNATURES = {
    "attend": [N, N, N, N, F, P, P, P, P, N, P, P],
    "attend_backward": [N, N, N, N, F, P, P, P, P, P, P, P, N, P, P, P],
    "rotate": [P, N, N, N, P, P, F],
    "rms_norm": [P, P, P, P, N, N, F],
    "rms_norm_backward": [P, P, P, P, P, N, N],
    "gated_silu": [P, P, P, N],
    "gated_silu_backward": [P, P, P, P, P, N],
    "softmax_tile": [P, N, N, N, P, N, P, P, P, P, P],
}
FORMATS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class NativeTuningKernels(PortableTuningKernels):
    """`TuningKernels` from a compiled library. Raises OSError where it cannot be loaded."""

    def __init__(self, library: Path) -> None:
        # torch's OpenMP is there already, and its symbols are global; the library brings none
        loaded = ctypes.CDLL(str(library))
        self._lanes = int(loaded.burnish_lanes())
        self._calls = {dtype: _functions(loaded, name) for dtype, name in FORMATS.items()}

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Sequence[Bounds], scale: float
    ) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`."""
        if q.shape[-1] % self._lanes:
            return super().attend(q, k, v, segments, scale)
        q, k, v = (x.contiguous() for x in (q, k, v))
        result = torch.empty_like(q)
        log_sums = torch.empty(q.shape[:2], dtype=torch.float32)
        bounds = torch.tensor(segments)
        self._calls[q.dtype].attend(
            *_sizes(q, k),
            scale,
            *_places(q, k, v, bounds),
            len(segments),
            *_places(result, log_sums),
        )
        return result, log_sums

    def attend_backward(
        self,
        of_result: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        result: Tensor,
        log_sums: Tensor,
        segments: Sequence[Bounds],
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `TuningKernels`."""
        if q.shape[-1] % self._lanes:
            return super().attend_backward(of_result, q, k, v, result, log_sums, segments, scale)
        of_result, q, k, v = (x.contiguous() for x in (of_result, q, k, v))
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        bounds = torch.tensor(segments)
        self._calls[q.dtype].attend_backward(
            *_sizes(q, k),
            scale,
            *_places(q, k, v, result, of_result, log_sums, bounds),
            len(segments),
            *_places(dq, dk, dv),
        )
        return dq, dk, dv

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> None:
        """See `TuningKernels`."""
        if x.shape[-1] % (2 * self._lanes):
            super().rotate(x, cos, sin, back=back)
            return
        cos, sin = (angles.to(x.dtype).contiguous() for angles in (cos, sin))
        self._calls[x.dtype].rotate(
            *_places(x), *x.shape, *_places(cos, sin), -1.0 if back else 1.0
        )

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`."""
        n = weight.numel()
        if n % self._lanes:
            return super().rms_norm(x, weight, epsilon)
        x = x.contiguous()
        y, scale = torch.empty_like(x), torch.empty(*x.shape[:-1], 1, dtype=torch.float32)
        self._calls[x.dtype].rms_norm(*_places(x, weight, y, scale), scale.numel(), n, epsilon)
        return y, scale

    def rms_norm_backward(self, dy: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """See `TuningKernels`."""
        n = weight.numel()
        if n % self._lanes:
            return super().rms_norm_backward(dy, x, weight, scale)
        dy, x = dy.contiguous(), x.contiguous()
        dx = torch.empty_like(x)
        self._calls[x.dtype].rms_norm_backward(*_places(dy, x, weight, scale, dx), scale.numel(), n)
        return dx

    def gated_silu(self, gate: Tensor, up: Tensor) -> Tensor:
        """See `TuningKernels`."""
        if gate.numel() % self._lanes:
            return super().gated_silu(gate, up)
        y = torch.empty_like(gate)
        self._calls[gate.dtype].gated_silu(*_places(gate, up, y), gate.numel() // self._lanes)
        return y

    def gated_silu_backward(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`."""
        if gate.numel() % self._lanes:
            return super().gated_silu_backward(dy, gate, up)
        y, of_gate = torch.empty_like(gate), torch.empty_like(gate)
        self._calls[gate.dtype].gated_silu_backward(
            *_places(dy, gate, up, y, of_gate), gate.numel() // self._lanes
        )
        return y, of_gate

    def softmax_tile(
        self, logits: Tensor, targets: Tensor, first: int, sums: SoftmaxSums
    ) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`."""
        if logits.shape[1] % self._lanes:
            return super().softmax_tile(logits, targets, first, sums)
        assert logits.stride(1) == 1
        rescale = torch.empty_like(sums.total)
        self._calls[logits.dtype].softmax_tile(
            logits.data_ptr(),
            *logits.shape,
            logits.stride(0),
            *_places(targets),
            first,
            *_places(sums.highest, sums.total, sums.logits, sums.own, rescale),
        )
        return logits, rescale


def _functions(library: ctypes.CDLL, name: str) -> SimpleNamespace:
    """The library's functions for one number format."""
    functions = SimpleNamespace()
    for operation, arguments in KERNEL_SIGNATURES.items():
        function = getattr(library, f"burnish_{operation}_{name}")
        function.argtypes, function.restype = arguments, None
        setattr(functions, operation, function)
    return functions


def _places(*tensors: Tensor) -> list[int]:
    assert all(tensor.is_contiguous() for tensor in tensors)
    return [tensor.data_ptr() for tensor in tensors]


def _sizes(q: Tensor, k: Tensor) -> tuple[int, int, int, int]:
    tokens, heads, dim = q.shape
    return tokens, heads, k.shape[1], dim
