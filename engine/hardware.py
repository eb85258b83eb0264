"""The choice of the device and the dense number format for this machine, and its description."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

# The extensions that timings depend on, the widest first, by their flag in /proc/cpuinfo
VECTOR_UNITS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
CPUINFO = Path("/proc/cpuinfo")


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


def describe_processor() -> dict[str, Any]:
    """Return what figures are measured with: `processor`, its widest `units`, torch's `threads`."""
    flags = _cpuinfo("flags").split()
    units = next((name for flag, name in VECTOR_UNITS.items() if flag in flags), "")
    return {"processor": processor_name(), "units": units, "threads": torch.get_num_threads()}


def processor_name() -> str:
    """Return the processor's name."""
    return _cpuinfo("model name") or platform.processor()


def _cpuinfo(field: str) -> str:
    """Return the first value of a field, "" where Linux does not tell."""
    lines = CPUINFO.read_text("utf-8").splitlines() if CPUINFO.is_file() else []
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(field))
    return next(values, "")
