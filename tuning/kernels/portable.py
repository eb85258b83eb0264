"""The kernels in plain torch, which the compiled ones equal up to rounding.

Forward and backward passes of what a tuning step does beside plain matrix products. Each is told
what to differentiate by; none keeps anything. Tokens of several rows lie one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import silu

Bounds = tuple[int, int, int, int]  # of a `tuning.batch.plan.Segment`
# What `scaled_dot_product_attention` calls on a processor; this one tells the sums of exponentials
flash_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
TILE_ROWS = 64  # query rows whose scores are made at once: fewest wasted above the diagonal
SMALLEST_EXPONENT = -80.0  # e^-80 adds nothing; below it come denormal numbers, 20 times slower


@dataclass(frozen=True, slots=True)
class SoftmaxSums:
    """Running sums of each token over the logits so far, each (tokens,) float32.

    The highest logit, the sum of e^(logit - highest), the sum, and the target's logit."""

    highest: Tensor
    total: Tensor
    logits: Tensor
    own: Tensor

    @classmethod
    def of(cls, tokens: int, device: torch.device) -> SoftmaxSums:
        """Before the first logit."""
        none = torch.full((tokens,), -torch.inf, device=device)
        return cls(none, *(torch.zeros_like(none) for _ in range(3)))


class TuningKernels(Protocol):
    """The operations. T tokens; activations in one number format, which results have too."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Sequence[Bounds], scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attention within segments, which cover all tokens in order.

        A segment's token sees its prompt and, behind that, its own segment up to itself. The prompt
        may be the beginning of the segment, whose tokens then see each other both ways.

        q (T, heads, dim); k, v (T, key heads, dim). Returns the result, like q, and the log of
        each row's sum of exponentials, (T, heads) float32.
        """
        ...

    def attend_backward(
        self,
        of_result: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        result: Tensor,
        log_sums: Tensor,
        segments: Sequence[Bounds],
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v."""
        ...

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> None:
        """Turn x (T, heads, dim) in place by angles (T, dim), whose halves are equal (Su et al.
        2021, sec. 3.4.2, with the halves of a head for pairs); `back` is its gradient."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """x / rms(x) * weight (Zhang & Sennrich 2019, eq. 4) of the last dimension, and 1 / rms(x)
        in float32."""
        ...

    def rms_norm_backward(self, dy: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """Gradient of x; weight is frozen."""
        ...

    def gated_silu(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up."""
        ...

    def gated_silu_backward(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """silu(gate) * up again, and the gradient of gate; dy becomes the gradient of up."""
        ...

    def softmax_tile(
        self, logits: Tensor, targets: Tensor, first: int, sums: SoftmaxSums
    ) -> tuple[Tensor, Tensor]:
        """Take a tile of logits (T, n), of words from `first` on, into the sums (Milakov &
        Gimelshein 2018, alg. 3).

        Returns e^(logit - highest), and what sums over earlier tiles are worth now, (T,). The
        logits may be written over.
        """
        ...


class PortableTuningKernels:
    """`TuningKernels` by torch's own operations."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Sequence[Bounds], scale: float
    ) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`; on a processor alone."""
        query, key, value = (x.transpose(0, 1)[None] for x in (q, k, v))
        found = [
            flash_attention(q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale)
            for q, k, v, mask in each_segment(query, key, value, segments)
        ]
        result, log_sums = (torch.cat(parts, dim=2)[0] for parts in zip(*found, strict=True))
        return result.transpose(0, 1).contiguous(), log_sums.t()

    def attend_backward(
        self,
        of_result: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        result: Tensor,
        log_sums: Tensor,
        segments: Sequence[Bounds],
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `TuningKernels`. Computes the gradient (Dao et al. 2022, alg. 4) by tiles of rows.

        torch's own backward pass takes three to six times its forward pass, in bf16 above all.
        """
        groups = k.shape[1], q.shape[1] // k.shape[1]  # query heads share a key head
        apart = *groups, *q.shape[::2]  # q is (T, heads, dim)
        qs, do, o = (x.transpose(0, 1).float().reshape(apart) for x in (q, of_result, result))
        qs = qs * scale
        ks, vs = (x.transpose(0, 1).float() for x in (k, v))
        dq, dk, dv = torch.empty_like(qs), torch.zeros_like(ks), torch.zeros_like(vs)
        sums = log_sums.t().reshape(*apart[:-1], 1)
        along = (do * o).sum(-1, keepdim=True)
        for prompt_start, prompt_end, start, end in segments:
            prompt, seen = prompt_end - prompt_start, end - start
            own_start = max(start, prompt_end)
            places = torch.cat(
                [torch.arange(prompt_start, prompt_end), torch.arange(own_start, end)]
            )
            own_k, own_v = (x[:, places] for x in (ks, vs))
            of_k, of_v = torch.zeros_like(own_k), torch.zeros_like(own_v)
            for first in range(0, seen, TILE_ROWS):
                last = min(first + TILE_ROWS, seen)
                # Numbers of the segment's own keys that the first and the last row see, but one
                own_first, own_last = (start + row - own_start for row in (first, last))
                rows, keys = slice(start + first, start + last), slice(0, prompt + max(own_last, 0))
                tile_q, tile_do = (x[:, :, rows].flatten(1, 2) for x in (qs, do))
                p = (tile_q @ own_k[:, keys].mT).view(*groups, last - first, -1)
                p.sub_(sums[:, :, rows]).exp_()
                p[..., prompt + max(own_first, 0) :].tril_(min(own_first, 0))
                ds = (tile_do @ own_v[:, keys].mT).view_as(p).sub_(along[:, :, rows]).mul_(p)
                p, ds = p.flatten(1, 2), ds.flatten(1, 2)
                of_v[:, keys].baddbmm_(p.mT, tile_do)
                of_k[:, keys].baddbmm_(ds.mT, tile_q)
                dq[:, :, rows] = (ds @ own_k[:, keys]).view(*groups, last - first, -1)
            dk.index_add_(1, places, of_k)
            dv.index_add_(1, places, of_v)
        dq = dq.mul_(scale).flatten(0, 1)
        dq, dk, dv = (x.transpose(0, 1).to(q.dtype).contiguous() for x in (dq, dk, dv))
        return dq, dk, dv

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> None:
        """See `TuningKernels`."""
        low, high = x.chunk(2, -1)
        cos, sin = (angles[:, None, : x.shape[-1] // 2] for angles in (cos, -sin if back else sin))
        turned = low * cos - high * sin
        high.copy_(high * cos + low * sin)
        low.copy_(turned)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`."""
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        return (wide * scale).to(x.dtype).mul_(weight), scale

    def rms_norm_backward(self, dy: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """See `TuningKernels`."""
        weighted = dy.float() * weight
        along = (weighted * x).mean(-1, keepdim=True).mul_(scale.pow(3))
        return weighted.mul_(scale).sub_(x * along).to(x.dtype)

    def gated_silu(self, gate: Tensor, up: Tensor) -> Tensor:
        """See `TuningKernels`."""
        return silu(gate).mul_(up)

    def gated_silu_backward(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`."""
        activated = silu(gate)
        of_gate = torch.ops.aten.silu_backward(dy * up, gate)
        dy.mul_(activated)
        return activated.mul_(up), of_gate

    def softmax_tile(
        self, logits: Tensor, targets: Tensor, first: int, sums: SoftmaxSums
    ) -> tuple[Tensor, Tensor]:
        """See `TuningKernels`."""
        logits = logits.float()
        sums.logits.add_(logits.sum(-1))
        sums.own.copy_(_pick(logits, targets - first, sums.own))
        now = torch.maximum(sums.highest, logits.amax(-1))
        rescale = _exp_(sums.highest - now)
        _exp_(logits.sub_(now[:, None]))
        sums.total.mul_(rescale).add_(logits.sum(-1))
        sums.highest.copy_(now)
        return logits, rescale


def each_segment(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Bounds]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield each segment's queries, the keys and values they may see, and a mask (None: causal).

    Shapes (1, heads, tokens, dim).
    """
    for prompt_start, prompt_end, start, end in segments:
        q, k, v = (x[:, :, start:end] for x in (query, key, value))
        if prompt := prompt_end - prompt_start:
            own_start = max(start, prompt_end)
            k, v = (
                torch.cat([x[:, :, prompt_start:prompt_end], x[:, :, own_start:end]], dim=2)
                for x in (key, value)
            )
        yield q, k, v, _below(prompt, k.shape[2] - prompt, q) if prompt else None


def _below(prompt: int, own: int, like: Tensor) -> Tensor:
    """Additive mask (tokens, prompt + own): all of the prompt, and one's own past."""
    tokens = like.shape[2]
    hidden = torch.full((tokens, prompt + own), -torch.inf, dtype=like.dtype, device=like.device)
    hidden[:, :prompt] = 0
    return hidden.triu(prompt + 1 + own - tokens)


def _pick(logits: Tensor, places: Tensor, otherwise: Tensor) -> Tensor:
    """logits[i, places[i]] where there is such a place."""
    last = logits.shape[1] - 1
    found = logits.gather(1, places.clamp(0, last)[:, None])[:, 0]
    return torch.where((places >= 0) & (places <= last), found, otherwise)


def _exp_(x: Tensor) -> Tensor:
    return x.clamp_(min=SMALLEST_EXPONENT).exp_()
