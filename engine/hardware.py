"""The choice of the device and the dense number format for this machine."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch


@dataclass(frozen=True, slots=True)
class Hardware:
    """The chosen device and dense number format, and the reason."""

    device: str
    dtype: torch.dtype
    reason: str
    cpu_threads: int
    memory_bytes: int


def detect() -> Hardware:
    """Choose the device and the dtype.

    A CPU without bf16 units emulates bf16, so it is used only where the units exist;
    `benchmarks/serving.py` times both formats.
    """
    memory_bytes = psutil.virtual_memory().total
    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        return Hardware("cuda", torch.bfloat16, "a CUDA device is present", threads, memory_bytes)
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        reason = "no CUDA device; this processor has bf16 units"
        return Hardware("cpu", torch.bfloat16, reason, threads, memory_bytes)
    reason = "no CUDA device; this processor has no bf16 units, so fp32 is faster"
    return Hardware("cpu", torch.float32, reason, threads, memory_bytes)
