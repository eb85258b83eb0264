"""The rotary embedding of a GGUF file: metadata and tensors as transformers' `rope_parameters`.

llama.cpp and transformers rotate pair i at position p by p * theta ** (-2 i / d), and both change
that angle by the settings of the file:

- `rope_freqs.weight` holds one divisor of the angle for each pair (Llama 3.1).
- `rope.scaling.type` `linear` (also where a factor stands alone) divides every angle by
  `rope.scaling.factor`; `yarn` divides the slow pairs alone (Peng et al. 2023), `longrope` takes
  its divisors from `rope_factors_short.weight` and `rope_factors_long.weight`.
- `rope.scaling.attn_factor` multiplies cosine and sine.

Divisors that no named type describes are stored as `longrope` with two equal lists of factors,
which is exact. Knows nothing of files or of the other settings of a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ModelUnavailable

DEFAULT_THETA = 10_000.0  # llama.cpp's, where the file names none
LLAMA3_CONTEXT = 8192  # tokens that Llama 3 was trained on before its context was extended
LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR = 1.0, 4.0  # Llama 3.1's
RELATIVE_TOLERANCE = 1e-5  # of divisors that were stored as float32


@dataclass(frozen=True, slots=True)
class RopeTensors:
    """Divisors of the angles, one for each rotary pair; None for a missing tensor."""

    freqs: Sequence[float] | None = None
    short: Sequence[float] | None = None
    long: Sequence[float] | None = None


def rope_parameters(
    settings: Mapping[str, Any], tensors: RopeTensors, *, pairs: int, context_tokens: int
) -> dict[str, Any]:
    """The `rope_parameters` of a config.json.

    `settings`: the file's metadata without the architecture's name in front of the keys. Raises
    `ModelUnavailable` with the name of a setting that cannot be carried over.
    """
    _check_lengths(tensors, pairs)
    theta = float(settings.get("rope.freq_base", DEFAULT_THETA))
    kind = settings.get("rope.scaling.type", "linear")
    factor = float(settings.get("rope.scaling.factor") or settings.get("rope.scale_linear") or 1)
    attention_factor = float(settings.get("rope.scaling.attn_factor", 1))
    original = settings.get("rope.scaling.original_context_length")
    if kind in ("none", "linear"):
        divisors = np.array(tensors.freqs or [1.0] * pairs) * (1 if kind == "none" else factor)
        found = _static(divisors, attention_factor, theta, original, context_tokens)
    elif kind == "yarn" and tensors.freqs is None:
        found = _yarn(settings, factor, attention_factor, int(original or context_tokens))
    elif kind == "longrope" and tensors.freqs is None and tensors.short and tensors.long:
        found = {
            "rope_type": "longrope",
            "short_factor": [factor * value for value in tensors.short],
            "long_factor": [factor * value for value in tensors.long],
            "attention_factor": attention_factor,
            "original_max_position_embeddings": int(original or context_tokens),
        }
    else:
        raise ModelUnavailable(
            f"rope.scaling.type = {kind!r} is not supported with the rope tensors it has"
        )
    return {"rope_theta": theta, **found}


def _check_lengths(tensors: RopeTensors, pairs: int) -> None:
    for divisors in (tensors.freqs, tensors.short, tensors.long):
        if divisors is None:
            continue
        if len(divisors) != pairs or not all(0 < value < math.inf for value in divisors):
            raise ModelUnavailable(
                f"its rope tensors must hold {pairs} positive factors, one for each rotary pair"
            )


def _static(
    divisors: np.ndarray[Any, np.dtype[np.float64]],
    attention_factor: float,
    theta: float,
    original: int | None,
    context_tokens: int,
) -> dict[str, Any]:
    """The simplest type that divides the angles by `divisors` at every length."""
    if attention_factor == 1:
        if np.all(divisors == divisors[0]):
            factor = float(divisors[0])
            return (
                {"rope_type": "default"}
                if factor == 1
                else {"rope_type": "linear", "factor": factor}
            )
        factor = float(divisors.max())
        for old_context in filter(None, (original, LLAMA3_CONTEXT)):
            expected = _llama3_divisors(len(divisors), theta, factor, int(old_context))
            if np.allclose(divisors, expected, rtol=RELATIVE_TOLERANCE, atol=0):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": LOW_FREQ_FACTOR,
                    "high_freq_factor": HIGH_FREQ_FACTOR,
                    "original_max_position_embeddings": int(old_context),
                }
    return {
        "rope_type": "longrope",
        "short_factor": divisors.tolist(),
        "long_factor": divisors.tolist(),
        "attention_factor": attention_factor,
        "original_max_position_embeddings": context_tokens,
    }


def _llama3_divisors(
    pairs: int, theta: float, factor: float, old_context: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The divisors of Llama 3.1: 1 for fast pairs, `factor` for slow ones, interpolated between."""
    wavelengths = 2 * np.pi * theta ** (np.arange(pairs) / pairs)
    smooth = (old_context / wavelengths - LOW_FREQ_FACTOR) / (HIGH_FREQ_FACTOR - LOW_FREQ_FACTOR)
    smooth = smooth.clip(0, 1)
    divisors: np.ndarray[Any, np.dtype[np.float64]] = 1 / ((1 - smooth) / factor + smooth)
    return divisors


def _yarn(
    settings: Mapping[str, Any], factor: float, attention_factor: float, original: int
) -> dict[str, Any]:
    """The parameters of YaRN; llama.cpp multiplies `attn_factor` by the factor of the paper."""
    return {
        "rope_type": "yarn",
        "factor": factor,
        "attention_factor": attention_factor * (1 + 0.1 * math.log(max(factor, 1))),
        "beta_fast": float(settings.get("rope.scaling.yarn_beta_fast", 32)),
        "beta_slow": float(settings.get("rope.scaling.yarn_beta_slow", 1)),
        "original_max_position_embeddings": original,
    }
