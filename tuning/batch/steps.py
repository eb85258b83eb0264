"""A training step over packs: the gradient and the logs of the whole batch, a pack at a time.

Only one pack's activations are held at once. Processes that train together may have different
numbers of packs, so they communicate once a step: gradients and metrics, after its last pack. Knows
how trl's trainers keep their metrics; knows no loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Pack = dict[str, Any]
BatchShare = dict[str, float]  # a pack's part of its batch, by what is counted


class PackedSteps:
    """A mixin for a trl trainer whose collator is a `Packer`; stands before it among the bases."""

    def counts(self, pack: Pack) -> dict[str, int]:
        """The numbers of rows, scored tokens and so on in a pack, by name."""
        raise NotImplementedError

    def counted_by(self, metric: str) -> str:
        """The key of `counts` that a logged metric is a mean over."""
        raise NotImplementedError

    def scaled_loss(self, share: BatchShare) -> AbstractContextManager[None]:
        """Scale each mean in a pack's loss to its share of the batch, inside the context."""
        raise NotImplementedError

    def training_step(
        self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward of each pack; returns the loss of the batch."""
        trainer: Any = self
        packs: Sequence[Pack] = inputs["packs"]
        counts = [self.counts(pack) for pack in packs]
        logged, tokens = trainer._metrics["train"], trainer._total_train_tokens
        sums: dict[str, float] = defaultdict(float)
        losses = []
        for pack, count, share in zip(packs, counts, _batch_shares(counts), strict=True):
            trainer._metrics["train"] = defaultdict(list)
            waiting = pack is not packs[-1]  # gradients are exchanged once a step
            with (
                self.scaled_loss(share),
                _local_metrics(trainer.accelerator),
                trainer.accelerator.no_sync(model) if waiting else nullcontext(),
            ):
                losses.append(super().training_step(model, pack, num_items_in_batch))  # type: ignore[misc]
            del trainer._metrics["train"]["num_tokens"]
            for name, (value,) in trainer._metrics["train"].items():
                sums[name] += value * count[self.counted_by(name)]
        totals = {kind: float(sum(count[kind] for count in counts)) for kind in counts[0]}
        here = {"num_tokens": trainer._total_train_tokens - tokens}
        sums, totals, here = sum_over_processes(trainer.accelerator, sums, totals, here)
        for name, value in sums.items():
            logged[name].append(value / (totals[self.counted_by(name)] or 1.0))
        trainer._total_train_tokens = tokens + int(here["num_tokens"])
        logged["num_tokens"] = [trainer._total_train_tokens]
        trainer._metrics["train"] = logged
        return torch.stack(losses).sum()


@contextmanager
def _local_metrics(accelerator: Accelerator) -> Iterator[None]:
    """Keep trl's metrics local to this process, since others may be at another pack."""
    accelerator.gather = accelerator.gather_for_metrics = lambda values: values
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics  # the methods show again


def sum_over_processes(
    accelerator: Accelerator, *parts: Mapping[str, float]
) -> list[dict[str, float]]:
    """Numbers summed over all processes, which all have the same names in the same order."""
    own = [value for part in parts for value in part.values()]
    summed = accelerator.reduce(torch.tensor(own, dtype=torch.float64, device=accelerator.device))
    found = iter(summed.tolist())
    return [{name: next(found) for name in part} for part in parts]


def _batch_shares(counts: Sequence[dict[str, int]]) -> list[BatchShare]:
    totals = {name: sum(each[name] for each in counts) for name in counts[0]}
    return [
        {name: each[name] / total if total else 0.0 for name, total in totals.items()}
        for each in counts
    ]
