"""Fused parts of a decoder layer, each one autograd function with a backward pass of its own.

A gated feed-forward block, self-attention and a norm keep little for the backward pass;
`tuning.kernels` computes all but their matrix products. A module is recognised by its names and
by comparing its results with ours; any other module, and one that holds no plain LoRA (DoRA,
dropout), stays as it is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from tuning.batch.attention import Segments
from tuning.batch.lora import Grads, Projections, is_lora_linear, lora_linear
from tuning.kernels import PORTABLE
from tuning.kernels.portable import TuningKernels

# The layers of a gated block: gate and up, side by side in one matrix or apart, and down
GATED = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
TRIAL_TOKENS = 5
TRIAL_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}  # rounded some ten times each


def patch_modules(model: PeftModel, kernels: TuningKernels) -> None:
    """Replace the forward methods of the modules that are of a known kind."""
    dtype = model.get_base_model().dtype
    for module in model.modules():
        if _is_gated(module, dtype):
            module.forward = partial(_gated_forward, kernels, module, module.forward)
        elif _is_self_attention(module, dtype):
            module.forward = partial(_self_attention_forward, module, module.forward)
        elif is_lora_linear(module):
            module.forward = partial(lora_linear, module, module.forward)
        elif _is_rms_norm(module):
            module.forward = partial(_rms_norm_forward, kernels, module, module.forward)


class _Gated(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)); the product is computed again in the backward pass.

    Gate and up are two projections, or the halves of one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters_and_rest: Any) -> Tensor:
        inner, down, kernels = ctx.rest = parameters_and_rest[-3:]
        ys, low = inner.forward(x)
        gate, up = ys if len(ys) == 2 else (half.contiguous() for half in ys[0].chunk(2, -1))
        (y,), low_down = down.forward(kernels.gated_silu(gate, up))
        ctx.save_for_backward(x, gate, up, low, low_down)
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        x, gate, up, low, low_down = ctx.saved_tensors
        inner, down, kernels = ctx.rest
        dlow = down.low_rank_gradient([dy])
        dup = down.input_gradient([dy], dlow)
        gated, dgate = kernels.gated_silu_backward(dup, gate, up)
        of_down = down.parameter_gradients(gated, low_down, [dy], dlow)
        del gated
        dys = (dgate, dup) if len(inner.each) == 2 else (torch.cat([dgate, dup], -1),)
        dlow = inner.low_rank_gradient(dys)
        of_inner = inner.parameter_gradients(x, low, dys, dlow)
        return inner.input_gradient(dys, dlow), *of_inner, *of_down, None, None, None


class _SelfAttention(torch.autograd.Function):
    """out(attention of rotated query(x) and key(x), and value(x)), within segments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, *parameters_and_rest: Any) -> Tensor:
        qkv, out, segments, head_dim, scale = ctx.rest = parameters_and_rest[-5:]
        kernels = segments.kernels
        ys, low = qkv.forward(x)
        q, k, v = (y.unflatten(-1, (-1, head_dim)) for y in ys)
        kernels.rotate(q, cos, sin)
        kernels.rotate(k, cos, sin)
        seen, log_sums = kernels.attend(q, k, v, segments.bounds, scale)
        (y,), low_out = out.forward(seen.flatten(1))
        ctx.save_for_backward(x, cos, sin, low, q, k, v, seen, log_sums, low_out)
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        x, cos, sin, low, q, k, v, seen, log_sums, low_out = ctx.saved_tensors
        qkv, out, segments, _, scale = ctx.rest
        kernels = segments.kernels
        dlow = out.low_rank_gradient([dy])
        dseen = out.input_gradient([dy], dlow).view_as(seen)
        of_out = out.parameter_gradients(seen.flatten(1), low_out, [dy], dlow)
        dq, dk, dv = kernels.attend_backward(dseen, q, k, v, seen, log_sums, segments.bounds, scale)
        kernels.rotate(dq, cos, sin, back=True)
        kernels.rotate(dk, cos, sin, back=True)
        dys = [d.flatten(1) for d in (dq, dk, dv)]
        dlow = qkv.low_rank_gradient(dys)
        of_qkv = qkv.parameter_gradients(x, low, dys, dlow)
        dx = qkv.input_gradient(dys, dlow) if ctx.needs_input_grad[0] else None
        return dx, None, None, *of_qkv, *of_out, *(None,) * 5


class _RmsNorm(torch.autograd.Function):
    """See `TuningKernels.rms_norm`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, epsilon: float, kernels: TuningKernels
    ) -> Tensor:
        y, scale = kernels.rms_norm(x, weight, epsilon)
        ctx.save_for_backward(x, scale, weight)
        ctx.kernels = kernels
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        x, scale, weight = ctx.saved_tensors
        return ctx.kernels.rms_norm_backward(dy, x, weight, scale), None, None, None


def _gated_forward(kernels: TuningKernels, module: Any, original: Any, x: Tensor) -> Tensor:
    names, name = _gated_layers(module)
    inner = Projections.of([getattr(module, each) for each in names], x)
    down = Projections.of([getattr(module, name)], x)
    if inner is None or down is None:
        return original(x)  # type: ignore[no-any-return]
    parameters = *inner.parameters, *down.parameters
    y: Tensor = _Gated.apply(x.flatten(0, -2), *parameters, inner, down, kernels)  # type: ignore[no-untyped-call]
    return y.view_as(x)


def _self_attention_forward(
    module: Any, original: Any, hidden_states: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    segments: Segments | None = kwargs.get("segments")
    layers = [getattr(module, name) for name in ATTENTION]
    qkv, out = (Projections.of(some, hidden_states) for some in (layers[:3], layers[3:]))
    if args or segments is None or qkv is None or out is None:
        return original(hidden_states, *args, **kwargs)  # type: ignore[no-any-return]
    cos, sin = (angles[0] for angles in kwargs["position_embeddings"])
    if cos.shape[-1] != module.head_dim:  # only a part of each head is turned
        return original(hidden_states, *args, **kwargs)  # type: ignore[no-any-return]
    parameters = *qkv.parameters, *out.parameters
    y: Tensor = _SelfAttention.apply(  # type: ignore[no-untyped-call]
        hidden_states[0], cos, sin, *parameters, qkv, out, segments, module.head_dim, module.scaling
    )
    return y[None], None


def _rms_norm_forward(kernels: TuningKernels, module: Any, original: Any, x: Tensor) -> Tensor:
    if x.dtype != module.weight.dtype:
        return original(x)  # type: ignore[no-any-return]
    y: Tensor = _RmsNorm.apply(x, module.weight, module.variance_epsilon, kernels)  # type: ignore[no-untyped-call]
    return y


def _gated_layers(module: Any) -> tuple[tuple[str, ...], str]:
    """The names of a gated block's layers; none for another module."""
    for inner, down in GATED:
        if all(is_lora_linear(getattr(module, name, None)) for name in (*inner, down)):
            return inner, down
    return (), ""


def _is_gated(module: Any, dtype: torch.dtype) -> bool:
    names, _ = _gated_layers(module)
    activation = getattr(module, "act_fn", None) or getattr(module, "activation_fn", None)
    if not names or not isinstance(activation, nn.SiLU | SiLUActivation):
        return False
    ours = partial(_gated_forward, PORTABLE)
    return _matches_original(ours, module, getattr(module, names[0]).in_features, dtype)


def _is_self_attention(module: Any, dtype: torch.dtype) -> bool:
    """Return whether a module is attention with rotated halves of heads and no more."""
    if not all(is_lora_linear(getattr(module, name, None)) for name in ATTENTION):
        return False
    if not all(hasattr(module, name) for name in ("head_dim", "scaling")):
        return False
    if next(module.parameters()).device.type != "cpu":
        return False  # on CUDA torch's attention is as good backwards
    numbers = torch.Generator().manual_seed(0)
    angles = torch.rand(1, TRIAL_TOKENS, module.head_dim // 2, generator=numbers).repeat(1, 1, 2)
    return _matches_original(
        _self_attention_forward,
        module,
        module.q_proj.in_features,
        dtype,
        position_embeddings=(angles.cos().to(dtype), angles.sin().to(dtype)),
        attention_mask=None,
        segments=Segments(((0, 0, 0, TRIAL_TOKENS),), PORTABLE),
    )


def _is_rms_norm(module: nn.Module) -> bool:
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return False
    weight: Tensor = module.weight  # type: ignore[assignment]
    if weight.requires_grad:
        return False
    ours = partial(_rms_norm_forward, PORTABLE)  # rounds where the model's own does
    return _matches_original(ours, module, weight.numel(), weight.dtype, apart=1e-5)


@torch.no_grad()
def _matches_original(
    ours: Any, module: Any, width: int, dtype: torch.dtype, *, apart: float = 0.0, **given: Any
) -> bool:
    """Return whether our forward pass gives a module's own results, in training mode.

    Both are tried on small and on large numbers."""
    device, was_training = next(module.parameters()).device, module.training
    module.train()
    try:
        for size in (1.0, 30.0):
            x = size * torch.randn(
                1, TRIAL_TOKENS, width, generator=torch.Generator().manual_seed(0)
            )
            x = x.to(device, dtype)
            expected, found = module(x, **given), ours(module, module.forward, x, **given)
            if isinstance(expected, tuple):
                (expected, *_), (found, *_) = expected, found
            if not (found - expected).norm() <= (apart or TRIAL_TOLERANCE[dtype]) * expected.norm():
                return False
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return False  # it wants something else
    finally:
        module.train(was_training)
    return True
