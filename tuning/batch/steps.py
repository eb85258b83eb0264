"""A training step over packs: the gradient and the logs of the whole batch, a pack at a time.

Only one pack's activations are held at once. Knows how trl's trainers keep their metrics; knows no
loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

Pack = dict[str, Any]
Share = dict[str, float]  # a pack's part of its batch, by what is counted


class PackedSteps:
    """For a trl trainer whose collator is a `Packer`; stands before it among the bases."""

    def counts(self, pack: Pack) -> dict[str, int]:
        """How much of each counted thing is in a pack: rows, scored tokens and so on."""
        raise NotImplementedError

    def counted_by(self, metric: str) -> str:
        """What a logged metric is a mean over: a key of `counts`."""
        raise NotImplementedError

    def weighing(self, share: Share) -> AbstractContextManager[None]:
        """While a pack's loss is computed, let each mean in it count as its part of the batch."""
        raise NotImplementedError

    def training_step(
        self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward of each pack; returns the loss of the batch."""
        trainer: Any = self
        packs: Sequence[Pack] = inputs["packs"]
        logged = trainer._metrics["train"]
        means: dict[str, float] = defaultdict(float)
        losses = []
        for pack, share in zip(packs, _shares([self.counts(pack) for pack in packs]), strict=True):
            trainer._metrics["train"] = defaultdict(list)
            waiting = pack is not packs[-1]  # other processes hear of the gradients once
            with self.weighing(share), trainer.accelerator.no_sync(model) if waiting else (
                nullcontext()
            ):  # fmt: skip
                losses.append(super().training_step(model, pack, num_items_in_batch))  # type: ignore[misc]
            tokens = trainer._metrics["train"].pop("num_tokens")
            for name, (value,) in trainer._metrics["train"].items():
                means[name] += value * share[self.counted_by(name)]
        for name, value in means.items():
            logged[name].append(value)
        logged["num_tokens"] = tokens
        trainer._metrics["train"] = logged
        return torch.stack(losses).sum()


def _shares(counts: Sequence[dict[str, int]]) -> list[Share]:
    totals = {name: sum(each[name] for each in counts) for name in counts[0]}
    return [
        {name: each[name] / total if total else 0.0 for name, total in totals.items()}
        for each in counts
    ]
