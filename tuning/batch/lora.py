"""LoRA layers computed with fewer passes over memory; the parameters stay peft's.

peft adds a scaled product to a layer's result, one operation at a time, and autograd keeps what
each needs. Here the low-rank product is added inside a matrix product, forward and backward, and
a gated feed-forward block keeps its two inner activations only. Same numbers but for rounding.
LoRA: Hu et al. 2021, eq. 3; y = x W' + s (x A') B' (' transposes). The frozen weights may be held
in few bits (`tuning.quantized`): they are made dense for each product and not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from transformers.activations import SiLUActivation

from tuning.quantized import dense_weight, has_dense_weight

Grads = tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """A frozen linear layer and its adapter: y = x weight' + bias + scale (x a') b'.

    An adapter of more bits than x is rounded to x's for the products; its gradient is given its
    own format.
    """

    layer: nn.Module
    a: Tensor  # (rank, in)
    b: Tensor  # (out, rank)
    scale: float

    def weight(self, like: Tensor) -> Tensor:
        """The frozen weights (out, in), in the number format of another tensor."""
        return dense_weight(self.layer, like.dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y (tokens, out) and the low-rank x a' (tokens, rank)."""
        low = x @ self.a.to(x.dtype).t()
        y = linear(x, self.weight(x), self.layer.bias)  # type: ignore[arg-type]
        return y.addmm_(low, self.b.to(x.dtype).t(), alpha=self.scale), low

    def of_parameters(self, x: Tensor, low: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of a, of b, and of the low-rank product."""
        dlow = (dy @ self.b.to(dy.dtype)).mul_(self.scale)
        da, db = dlow.t() @ x, (dy.t() @ low).mul_(self.scale)
        return da.to(self.a.dtype), db.to(self.b.dtype), dlow

    def of_input(self, dy: Tensor, dlow: Tensor, onto: Tensor | None = None) -> Tensor:
        """Gradient of x, added onto another where one is given."""
        weight = self.weight(dy)
        dx = dy @ weight if onto is None else onto.addmm_(dy, weight)
        return dx.addmm_(dlow, self.a.to(dlow.dtype))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, projection: Projection) -> Tensor:
        y, low = projection.forward(x)
        ctx.save_for_backward(x, low)
        ctx.projection = projection
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        x, low = ctx.saved_tensors
        da, db, dlow = ctx.projection.of_parameters(x, low, dy)
        dx = ctx.projection.of_input(dy, dlow) if ctx.needs_input_grad[0] else None
        return dx, da, db, None


class _Gated(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)); the product is made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *tensors_and_projections: Any) -> Tensor:
        gate, up, down = ctx.projections = tensors_and_projections[-3:]
        g, low_g = gate.forward(x)
        u, low_u = up.forward(x)
        y, low_d = down.forward(silu(g).mul_(u))
        ctx.save_for_backward(x, g, u, low_g, low_u, low_d)
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        x, g, u, low_g, low_u, low_d = ctx.saved_tensors
        gate, up, down = ctx.projections
        activated = silu(g)
        da_d, db_d, dlow = down.of_parameters(activated * u, low_d, dy)
        inner = down.of_input(dy, dlow)
        du = activated.mul_(inner)
        da_u, db_u, dlow_u = up.of_parameters(x, low_u, du)
        dg = torch.ops.aten.silu_backward(inner.mul_(u), g)
        da_g, db_g, dlow_g = gate.of_parameters(x, low_g, dg)
        dx = gate.of_input(dg, dlow_g, onto=up.of_input(du, dlow_u))
        return dx, da_g, db_g, da_u, db_u, da_d, db_d, None, None, None


class _RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight (Zhang & Sennrich 2019, eq. 4), weight frozen, in float32 within."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        return (wide * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        x, scale, weight = ctx.saved_tensors
        weighted = dy.float() * weight
        along = (weighted * x).mean(-1, keepdim=True).mul_(scale.pow(3))
        return weighted.mul_(scale).sub_(x * along).to(x.dtype), None, None


def quicken(model: PeftModel) -> None:
    """Let the layers that are plain LoRA, gated blocks of them, and RMS norms compute this way.

    Others (DoRA, dropout) are left as they are.
    """
    for module in model.modules():
        if _is_gated(module):
            module.forward = partial(_gated_forward, module, module.forward)
        elif _is_linear(module):
            module.forward = partial(_linear_forward, module, module.forward)
        elif _is_rms_norm(module):
            module.forward = partial(_rms_norm_forward, module, module.forward)


def _linear_forward(module: Any, otherwise: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    projection = _projection(module, x)
    if projection is None or args or kwargs:
        return otherwise(x, *args, **kwargs)  # type: ignore[no-any-return]
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = _Linear.apply(rows, projection.a, projection.b, projection)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


def _gated_forward(module: Any, otherwise: Any, x: Tensor) -> Tensor:
    found = [_projection(p, x) for p in (module.gate_proj, module.up_proj, module.down_proj)]
    projections = [p for p in found if p is not None]
    if len(projections) < 3:
        return otherwise(x)  # type: ignore[no-any-return]
    rows = x.reshape(-1, x.shape[-1])
    trained = [tensor for p in projections for tensor in (p.a, p.b)]
    y: Tensor = _Gated.apply(rows, *trained, *projections)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


def _rms_norm_forward(module: Any, otherwise: Any, x: Tensor) -> Tensor:
    if x.dtype != module.weight.dtype:
        return otherwise(x)  # type: ignore[no-any-return]
    normed: Tensor = _RmsNorm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def _projection(module: Any, x: Tensor) -> Projection | None:
    """The one plain adapter that is active in a layer, or None."""
    if not _is_linear(module) or module.disable_adapters or module.merged:
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
        and has_dense_weight(base, x.dtype)
    )
    if not plain:
        return None
    return Projection(base, a.weight, b.weight, module.scaling[name])


def _is_linear(module: Any) -> bool:
    return isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), nn.Linear)


def _is_gated(module: nn.Module) -> bool:
    parts = (getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj"))
    return all(_is_linear(p) for p in parts) and isinstance(
        getattr(module, "act_fn", None), nn.SiLU | SiLUActivation
    )


def _is_rms_norm(module: nn.Module) -> bool:
    """Whether a norm computes what `_RmsNorm` does, by its name and by trying it."""
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return False
    weight: Tensor = module.weight  # type: ignore[assignment]
    if weight.requires_grad:
        return False
    x = torch.linspace(-2, 3, weight.numel(), device=weight.device, dtype=weight.dtype)[None]
    return torch.allclose(module(x), _rms_norm_forward(module, module, x), rtol=1e-5)
