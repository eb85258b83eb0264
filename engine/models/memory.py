"""The memory that a model takes, computed from its shapes alone, and the check that it is free."""

from __future__ import annotations

import contextlib
import ctypes

import psutil

from engine.errors import ModelUnavailable
from engine.hardware import detect
from engine.models.architecture import Architecture
from engine.models.checkpoint import Checkpoint
from engine.models.loading import has_own_head
from engine.models.presets import BITS
from engine.quantization import Quantization
from engine.units import gib

LOADING = 1.3  # while loading, the largest matrix is in memory twice
CONVERTED_BYTES = 2  # of one weight, in bfloat16


def matrix_bytes(
    checkpoint: Checkpoint, architecture: Architecture, quantization: Quantization
) -> int:
    """Bytes of all matrices in memory."""
    config, layout = architecture.config, architecture.layout
    dense_bits = 8 * detect().dtype.itemsize
    bits, vocabulary_bits = BITS[quantization], BITS["int8"]
    if quantization == "none":
        bits = vocabulary_bits = dense_bits
    layers = sum(
        module.out_features * module.in_features
        for layer in layout.layers
        for modules in layer.linears
        for module in modules
    )
    matrices = 2 if has_own_head(checkpoint, layout) else 1
    vocabularies = config.vocabulary * config.hidden_size * matrices
    return int((layers * bits + vocabularies * vocabulary_bits) / 8)


def require_memory(
    checkpoint: Checkpoint, architecture: Architecture, quantization: Quantization
) -> None:
    """Raise `ModelUnavailable` if the weights do not fit into the memory that is free now."""
    needed = int(LOADING * matrix_bytes(checkpoint, architecture, quantization))
    remedy = "" if quantization == "int4" else " or hold its weights as int4"
    _require(needed, f"as {quantization}", remedy)


def require_memory_to_convert(weights: int) -> None:
    """Raise `ModelUnavailable` if a conversion, which needs all weights at once, does not fit."""
    _require(weights * CONVERTED_BYTES, "to be converted")


def _require(needed: int, how: str, remedy: str = "") -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise ModelUnavailable(
            f"the model needs about {gib(needed)} {how}, and "
            f"{gib(free)} are free: choose a smaller model{remedy}"
        )


def trim_heap() -> None:
    """Return freed memory to the system; the allocator would keep what loading has used."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
