"""LoRA layers computed with fewer passes over memory; the parameters stay peft's.

peft adds a scaled product to a layer's result, one operation at a time, and autograd keeps what
each needs. Here the low-rank product is added inside a matrix product, forward and backward, and
layers that read the same input share what can be shared. Same numbers but for rounding.
LoRA: Hu et al. 2021, eq. 3; y = x W' + s (x A') B' (' transposes). The frozen weights may be held
in few bits (`tuning.quantized`): they are made dense for each product and not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear

from tuning.quantized import dense_weight, has_dense_weight

Grads = tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """A frozen linear layer and its adapter."""

    layer: nn.Module
    a: Tensor  # (rank, in)
    b: Tensor  # (out, rank)
    scale: float

    @classmethod
    def of(cls, module: Any, x: Tensor) -> Self | None:
        """The projection of a layer with exactly one active, plain adapter; otherwise None."""
        if not is_lora_linear(module) or module.disable_adapters or module.merged:
            return None
        names = [name for name in module.active_adapters if name in module.lora_A]
        if len(names) != 1 or names[0] in module.lora_variant:
            return None
        (name,) = names
        base, a, b = module.base_layer, module.lora_A[name], module.lora_B[name]
        plain = (
            isinstance(module.lora_dropout[name], nn.Identity)
            and b.bias is None
            and not base.weight.requires_grad
            and (base.bias is None or not base.bias.requires_grad)
            and has_dense_weight(base, x.dtype)
        )
        return cls(base, a.weight, b.weight, module.scaling[name]) if plain else None


@dataclass(frozen=True, slots=True)
class Projections:
    """Projections of one input x (tokens, in), whose low-rank sides are computed as one.

    An adapter of more bits than x is rounded to x's for the products; its gradient is given its
    own format.
    """

    each: tuple[Projection, ...]

    @classmethod
    def of(cls, modules: Sequence[Any], x: Tensor) -> Self | None:
        """The projections of several layers, or None where one of them is not plain."""
        found = [Projection.of(module, x) for module in modules]
        each = tuple(projection for projection in found if projection is not None)
        return cls(each) if len(each) == len(found) else None

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """a and b of each, in order: what the gradients are of."""
        return tuple(tensor for p in self.each for tensor in (p.a, p.b))

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Each y (tokens, out), and the low-rank x a' of all side by side (tokens, ranks)."""
        low = x @ self._a(x).t()
        ys = [
            linear(x, dense_weight(p.layer, x.dtype), p.layer.bias).addmm_(  # type: ignore[arg-type]
                part, p.b.to(x.dtype).t(), alpha=p.scale
            )
            for p, part in zip(self.each, self._parts(low), strict=True)
        ]
        return ys, low

    def low_rank_gradient(self, dys: Sequence[Tensor]) -> Tensor:
        """Gradient of the low-rank products (tokens, ranks)."""
        low = dys[0].new_empty(len(dys[0]), sum(len(p.a) for p in self.each))
        for p, part, dy in zip(self.each, self._parts(low), dys, strict=True):
            torch.mm(dy, (p.b * p.scale).to(dy.dtype), out=part)
        return low

    def input_gradient(self, dys: Sequence[Tensor], dlow: Tensor) -> Tensor:
        """Gradient of x."""
        dx = dlow @ self._a(dlow)
        for p, dy in zip(self.each, dys, strict=True):
            dx.addmm_(dy, dense_weight(p.layer, dy.dtype))
        return dx

    def parameter_gradients(
        self, x: Tensor, low: Tensor, dys: Sequence[Tensor], dlow: Tensor
    ) -> tuple[Tensor, ...]:
        """Gradients of `parameters`."""
        das = (dlow.t() @ x).split_with_sizes([len(p.a) for p in self.each])
        grads: list[Tensor] = []
        for p, da, part, dy in zip(self.each, das, self._parts(low), dys, strict=True):
            grads += da.to(p.a.dtype), (dy.t() @ part).to(p.b.dtype).mul_(p.scale)
        return tuple(grads)

    def _a(self, like: Tensor) -> Tensor:
        return torch.cat([p.a for p in self.each]).to(like.dtype)

    def _parts(self, low: Tensor) -> tuple[Tensor, ...]:
        return low.split_with_sizes([len(p.a) for p in self.each], dim=1)


def lora_linear(module: Any, original: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A layer's forward pass; `original` is peft's."""
    projections = Projections.of([module], x)
    if projections is None or args or kwargs:
        return original(x, *args, **kwargs)  # type: ignore[no-any-return]
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = _Linear.apply(rows, *projections.parameters, projections)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters_and_projections: Any) -> Tensor:
        ctx.projections = parameters_and_projections[-1]
        (y,), low = ctx.projections.forward(x)
        ctx.save_for_backward(x, low)
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        x, low = ctx.saved_tensors
        projections: Projections = ctx.projections
        dlow = projections.low_rank_gradient([dy])
        dx = projections.input_gradient([dy], dlow) if ctx.needs_input_grad[0] else None
        return dx, *projections.parameter_gradients(x, low, [dy], dlow), None


def is_lora_linear(module: Any) -> bool:
    """Return whether a module is a linear layer that adapters may be in."""
    return isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), nn.Linear)
