"""The number formats of weights in memory."""

from typing import Literal

Quantization = Literal["none", "int8", "int4"]
