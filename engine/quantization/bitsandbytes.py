"""bitsandbytes: nf4 (QLoRA, Dettmers et al. 2023) and LLM.int8 (Dettmers et al. 2022).

Runs on CUDA (untested here for want of a GPU) and, slowly, on a CPU.
"""

from __future__ import annotations

import torch
from transformers import BitsAndBytesConfig

from engine.quantization import Quantization


def quantization_config(
    quantization: Quantization, compute_dtype: torch.dtype
) -> BitsAndBytesConfig:
    """The transformers configuration of `int4` or `int8`."""
    if quantization == "int4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        )
    return BitsAndBytesConfig(load_in_8bit=True)
