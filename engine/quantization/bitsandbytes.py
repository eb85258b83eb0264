"""bitsandbytes: nf4 (QLoRA, Dettmers et al. 2023) and LLM.int8 (Dettmers et al. 2022).

Runs on CUDA (untested here for want of a GPU) and, slowly, on a CPU.
"""

from __future__ import annotations

from typing import Literal

import torch
from transformers import BitsAndBytesConfig

Quantization = Literal["none", "int8", "int4"]


def quantization_config(
    quantization: Quantization, compute_dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """The transformers configuration of a quantization; None keeps the weights dense."""
    if quantization == "int4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        )
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return None
