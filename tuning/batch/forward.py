"""The packed forward pass, behind the interface by which trl asks for log-probabilities.

trl asks a model for `model(..., labels=..., fused_lm_head=True)` and computes its losses on the
grid of log-probabilities that comes back, (rows, tokens - 1), 0 where nothing is scored. A batch
that carries a `layout` is computed as one pack and answered in that same grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from engine.models.architecture import Architecture, CausalPositions, Positions
from tuning.batch.attention import ATTENTION_NAME, Segments
from tuning.batch.fused_layers import patch_modules
from tuning.batch.head import score_tokens
from tuning.batch.plan import PackLayout
from tuning.distributed import weights_are_split
from tuning.kernels import PORTABLE
from tuning.kernels.portable import TuningKernels

# How some architectures transform their logits; none of it is implemented here
LOGIT_TRANSFORMS = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)
# transformers takes a mask of four dimensions as it is; segments need none, and one of tokens by
# tokens is not built
EMPTY_MASK = torch.empty(1, 1, 0, 0)


def packing_blocker(model: PeftModel | PreTrainedModel) -> str | None:
    """The reason why a model's batches cannot be packed; None if they can."""
    base = _base(model)
    config = base.config.get_text_config()
    head = base.get_output_embeddings()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    reasons = {
        "its attention implementation cannot be replaced": not base._supports_attention_backend,
        "not every layer has full attention": layers != {"full_attention"}
        or getattr(config, "sliding_window", None) is not None,
        "its logits are transformed behind the head": head.bias is not None
        or any(getattr(config, name, None) is not None for name in LOGIT_TRANSFORMS),
        "its head is trained": head.weight.requires_grad,
        "its experts have a loss of their own": hasattr(config, "output_router_logits"),
        "its weights are split over processes": weights_are_split(),
        "its adapter is made of virtual tokens": isinstance(model, PeftModel)
        and model.active_peft_config.is_prompt_learning,
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    if found is None and not _passes_segments_on(base):
        return "its layers do not pass segments on to attention"
    return found


def positions_of(model: PeftModel | PreTrainedModel) -> Positions:
    """The positions of a row's tokens, and those that the model reads both ways."""
    architecture = _architecture(_base(model))
    return CausalPositions() if architecture is None else architecture.positions


def layout_tensors(layout: PackLayout) -> dict[str, Any]:
    """A layout as entries of a batch: integer tensors, and plain numbers for the bounds."""
    return {
        "input_ids": torch.tensor([layout.input_ids]),
        "position_ids": torch.tensor(layout.position_ids),
        "sources": torch.tensor(layout.sources, dtype=torch.long),
        "targets": torch.tensor(layout.targets, dtype=torch.long),
        "rows": torch.tensor(layout.rows, dtype=torch.long),
        "columns": torch.tensor(layout.columns, dtype=torch.long),
        "segments": [(s.prompt_start, s.prompt_end, s.start, s.end) for s in layout.segments],
    }


def accept_layouts(model: PeftModel | PreTrainedModel, kernels: TuningKernels) -> None:
    """Patch the model to compute batches that carry a `layout` as packs, others as before.

    Call it after trl has put its own head in place.
    """
    base = _base(model)
    base.set_attn_implementation(ATTENTION_NAME)
    base.forward = MethodType(_Forward(base.forward, kernels), base)
    if isinstance(model, PeftModel):
        patch_modules(model, kernels)


@dataclass(frozen=True, slots=True)
class _Forward:
    original: Any
    kernels: TuningKernels

    def __call__(
        self, base: Any, *args: Any, layout: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        if layout is None:
            return self.original(*args, **kwargs)
        hidden = base.base_model(
            input_ids=layout["input_ids"],
            position_ids=_batch_of_one(layout["position_ids"]),
            use_cache=False,
            segments=Segments(tuple(layout["segments"]), self.kernels),
            attention_mask=EMPTY_MASK,
        ).last_hidden_state[0]
        scores = score_tokens(
            hidden.index_select(0, layout["sources"]),
            base.get_output_embeddings().weight,
            layout["targets"],
            self.kernels,
        )
        rows, tokens = kwargs["labels"].shape
        place = layout["rows"] * (tokens - 1) + layout["columns"]

        def grid(values: Tensor) -> Tensor:
            return values.new_zeros(rows * (tokens - 1)).index_copy(0, place, values).view(rows, -1)

        return FusedCausalLMOutput(
            log_probs=grid(scores.log_probs),
            entropy=grid(scores.entropy),
            mean_logits=grid(scores.mean_logits),
            is_top1=grid(scores.is_top1),
            label_mask=grid(torch.ones_like(layout["targets"], dtype=torch.bool)),
        )


@torch.no_grad()
def _passes_segments_on(base: Any) -> bool:
    """Return whether attention receives its segments, tried on two tokens; else masks fail."""
    before = base.config._attn_implementation
    base.set_attn_implementation(ATTENTION_NAME)
    tokens = torch.arange(2, device=base.device)[None]
    architecture = _architecture(base)
    channels = 1 if architecture is None else architecture.config.position_channels
    try:
        base.base_model(
            input_ids=tokens,
            position_ids=_batch_of_one(tokens.expand(channels, 2)),
            use_cache=False,
            attention_mask=EMPTY_MASK,
            segments=Segments(((0, 0, 0, 2),), PORTABLE),
        )
    except (RuntimeError, TypeError, ValueError):
        return False
    finally:
        base.set_attn_implementation(before)
    return True


def _batch_of_one(positions: Tensor) -> Tensor:
    """Positions (channels, tokens) as a model takes them: (1, tokens), or (1, channels, tokens)."""
    return positions if len(positions) == 1 else positions[None]


def _architecture(base: Any) -> Architecture | None:
    """Our own description of the model; None for transformers' models."""
    found: Architecture | None = getattr(base.config, "architecture", None)
    return found


def _base(model: PeftModel | PreTrainedModel) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model
