"""A frozen base model whose weights are held in few bits while an adapter on it is trained.

QLoRA (Dettmers et al. 2023, sec. 3): the weights of a layer are made dense for its product, in the
forward pass and again in the backward pass, and are never kept dense. On CUDA they are held as nf4
by bitsandbytes; elsewhere as 8- or 4-bit codes in groups of 32, rounded as the engine rounds them.
Knows layers and weights; knows no trainer and no recipe. The CUDA path is untested on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from engine.models.catalogue import linear_shapes
from engine.quantization.bitsandbytes import keep_layout, quantization_config
from engine.quantization.groups import QuantizedMatrix, quantize_int4, quantize_int8
from tuning.models.loading import load_causal_lm
from tuning.weight_formats import Weights

ROUND: Mapping[str, Callable[[Tensor], QuantizedMatrix]] = MappingProxyType(
    {"int8": quantize_int8, "int4": quantize_int4}
)


class QuantizedLinear(nn.Linear):
    """A frozen linear layer in groups of 32 codes; peft takes it for the linear layer it is.

    weight  # int8 codes (out, padded in); or for 4 bits uint8 (out, padded in / 2), the first half
            # of the inputs in the low nibbles, the second in the high
    scales  # (out, padded in / 32) float16; mins alike, for 4 bits only
    """

    scales: Tensor
    mins: Tensor | None

    def __init__(
        self, blocks: QuantizedMatrix, in_features: int, bias: Tensor | None = None
    ) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a dense weight
        self.out_features, self.in_features = len(blocks.codes), in_features
        codes = blocks.codes
        if blocks.bits == 4:
            low, high = codes.chunk(2, dim=1)
            codes = low | (high << 4)
        self.weight = nn.Parameter(codes.contiguous(), requires_grad=False)
        self.register_buffer("scales", blocks.scales)
        self.register_buffer("mins", blocks.mins)
        held = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_parameter("bias", held)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weights as the codes mean them: (out, in)."""
        codes = self.weight
        if self.mins is None:
            blocks = QuantizedMatrix(codes, self.scales, None, bits=8)
        else:
            codes = torch.cat([codes & 15, codes >> 4], 1)
            blocks = QuantizedMatrix(codes, self.scales, self.mins, bits=4)
        return blocks.dequantize()[:, : self.in_features].to(dtype)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """x (..., in) -> (..., out)."""
        y: Tensor = _Frozen.apply(input, self)  # type: ignore[no-untyped-call]
        return y


class _Frozen(torch.autograd.Function):
    """x weight' + bias; nothing is kept for the backward pass but the layer itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return linear(x, layer.dense(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ ctx.layer.dense(dy.dtype), None


def load_base(folder: Path, weights: Weights, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """The base model in a folder, its linear layers held as asked, the rest dense in `dtype`.

    For 8 and 4 bits the dense weights are read first, so that loading takes more memory than
    training; nf4 is rounded while it is read.
    """
    options: dict[str, Any] = {"quantization_config": quantization_config("int4", dtype)}
    model = load_causal_lm(
        folder, dtype=dtype, device_map=device, **(options if weights == "nf4" else {})
    )
    keep_layout(model)
    if weights in ROUND:
        quantize_layers(model, linear_shapes(folder), ROUND[weights])
    return model


def quantize_layers(
    model: nn.Module, names: Iterable[str], round_to: Callable[[Tensor], QuantizedMatrix]
) -> None:
    """Put a quantized layer in the place of each named linear layer, one after the other."""
    for name in names:
        dense = model.get_submodule(name)
        if not isinstance(dense, nn.Linear):  # GPT-2's are of another kind and stay dense
            continue
        bias = None if dense.bias is None else dense.bias.detach()
        held = QuantizedLinear(round_to(dense.weight.detach()), dense.in_features, bias)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, held)


def held_weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights and scales of a model, a shared one counted once."""
    own = {id(t): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    return sum(own.values())


def has_dense_weight(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Return whether `dense_weight` can make this layer's weights dense in a number format."""
    plain = type(layer) is nn.Linear and layer.weight.dtype == dtype
    return plain or isinstance(layer, QuantizedLinear) or _is_nf4(layer)


def dense_weight(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """A frozen layer's weights (out, in) in a number format, made for this call if need be."""
    if isinstance(layer, QuantizedLinear):
        return layer.dense(dtype)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if not _is_nf4(layer):
        return weight
    from peft.utils.integrations import dequantize_bnb_weight

    dense: Tensor = dequantize_bnb_weight(weight)
    return dense.to(dtype)


def _is_nf4(layer: nn.Module) -> bool:
    return type(layer).__name__ == "Linear4bit"  # bitsandbytes', which is imported in one file
