"""How weights are held."""

from typing import Literal

Quantization = Literal["none", "int8", "int4"]
