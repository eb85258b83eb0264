"""bitsandbytes: nf4 (QLoRA, Dettmers et al. 2023) and LLM.int8 (Dettmers et al. 2022).

Runs on CUDA (untested here for want of a GPU) and, slowly, on a CPU.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
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


def keep_layout(model: nn.Module) -> None:
    """Keep layers from repacking their weights for a processor with AVX512-BF16.

    bitsandbytes repacks in the first forward pass that needs no gradient. Answers then change when
    an adapter is loaded, and a matrix narrower than a block cannot be computed at all (0.50).
    """
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


class BitsLinear:
    """A matrix quantized by bitsandbytes; inputs and results are float32."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        quantization: Quantization,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        bnb: Any = importlib.import_module("bitsandbytes.nn")  # untyped
        self.out_features, self.in_features = weight.shape
        self._dtype = dtype
        options = {"bias": bias is not None}
        if quantization == "int4":
            module = bnb.Linear4bit(
                self.in_features,
                self.out_features,
                **options,
                compute_dtype=dtype,
                compress_statistics=True,
                quant_type="nf4",
            )
            module.weight = bnb.Params4bit(
                weight.to(dtype), requires_grad=False, compress_statistics=True, quant_type="nf4"
            )
        else:
            module = bnb.Linear8bitLt(
                self.in_features,
                self.out_features,
                **options,
                has_fp16_weights=False,
                threshold=6.0,
            )
            module.weight = bnb.Int8Params(
                weight.to(torch.float16), requires_grad=False, has_fp16_weights=False
            )
        if bias is not None:
            module.bias = torch.nn.Parameter(bias.to(dtype), requires_grad=False)
        self._module = module.to(device).eval()  # quantized by the move
        keep_layout(self._module)

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, in) -> (T, out); with `add_to` (T, out), added to it in place."""
        y: Tensor = self._module(x.to(self._dtype)).float()
        return y if add_to is None else add_to.add_(y)

    @property
    def weight_bytes(self) -> int:
        """Bytes in memory, without the scales."""
        held: int = self._module.weight.nbytes
        return held
