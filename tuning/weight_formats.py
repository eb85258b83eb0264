"""Names of the ways in which a base model's weights are held in training. Imports no torch."""

from __future__ import annotations

from typing import Literal

# dense: in the number format; the others: `tuning.quantized`
Weights = Literal["dense", "int8", "int4", "nf4"]
# What dense weights and activations are held in; an adapter is always fp32
NumberFormat = Literal["fp32", "bf16"]
AskedFormat = Literal["auto", "fp32", "bf16"]  # auto: the faster one, `tuning.number_format`
