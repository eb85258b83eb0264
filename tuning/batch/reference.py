"""Log-probabilities of pairs under the current model: the reference of a preference loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from tuning.batch.collate import Packer

ROWS_AT_ONCE = 64  # packed together; more would waste less room, but hardly


@torch.no_grad()
def pair_log_probs(
    model: nn.Module, packer: Packer, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[float, float]]:
    """Summed log-probabilities (natural log) of each row's chosen and rejected completion.

    The model must accept layouts (`tuning.batch.forward`); it is left in the mode it came in.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found: list[tuple[float, float]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some: dict[int, tuple[float, float]] = {}
        for members, batch in packer.packs(rows[start : start + ROWS_AT_ONCE]):
            batch = send_to_device(batch, device)
            labels = batch["input_ids"]  # their values do not matter: the layout names the targets
            scores = model(layout=batch["layout"], labels=labels, fused_lm_head=True)
            chosen, rejected = scores.log_probs.sum(1).chunk(2)
            some |= zip(members, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True)
        found += (some[index] for index in sorted(some))
    model.train(was_training)
    return found
