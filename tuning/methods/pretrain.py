"""Continued pretraining on plain text of the operator's (Gururangan et al. 2020, sec. 3).

The next token of every position is learnt, on blocks cut from documents that lie end to end
(`tuning.text_blocks`). The recipe's section; the trainer is `pretrain_trainer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from tuning.methods.base import Method, TrainedAdapter, TrainedKind
from tuning.methods.fields import BatchSize, Epochs, LearningRate
from tuning.rows import ExampleKind, TrainingData


@dataclass(frozen=True, slots=True)
class PretrainRecipe(Method):
    """Continued pretraining; off by default.

    `text` is a file or a folder of `.txt`, `.md` and `.jsonl`; `digest` is that of its content,
    which reading the recipe fills in, and text that has changed since is refused.
    """

    needs: ClassVar[str] = "text of at least two tokens"
    adapter_kinds: ClassVar[tuple[TrainedKind, ...]] = (*get_args(TrainedAdapter), "full")

    epochs: Epochs = 0
    learning_rate: LearningRate = 1e-4
    batch_blocks: BatchSize = 4
    block_tokens: Annotated[int, "length of the blocks that the text is cut into, in tokens"] = 512
    text: Annotated[str | None, "file or folder of plain text to read"] = None
    digest: Annotated[str | None, "digest of that text, filled in by itself"] = None

    def rules(self) -> dict[str, bool]:
        """See `Method`."""
        return {
            "batch_blocks must be at least 1": self.batch_blocks >= 1,
            "block_tokens must be at least 16": self.block_tokens >= 16,
            "epochs needs pretrain.text, a file or a folder": (
                self.epochs <= 0 or self.text is not None
            ),
        }

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        """None: the snapshot is not read."""
        return frozenset()

    def rows(self, data: TrainingData) -> list[dict[str, Any]]:
        """Blocks as input_ids; completion_mask is 1 everywhere, since every token is learnt."""
        return [{"input_ids": ids, "completion_mask": [1] * len(ids)} for ids in data.blocks]
