"""Rows of a dataset to packs: trl's own batch for each, and the layout that it is computed in.

The one place that knows the columns: prompt_ids, chosen_ids, rejected_ids (and ref_*_logps) for
pairs; input_ids and labels (-100 where nothing is scored) for fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tuning.batch.forward import layout_tensors
from tuning.batch.plan import Branch, Tree, lay_out, pack

Row = Mapping[str, Any]
Batch = dict[str, Any]
Collate = Callable[[list[Row]], Batch]


def tree_of_pair(row: Row) -> Tree:
    """A prompt with its chosen and its rejected completion, every token of which is scored."""
    return Tree(
        tuple(row["prompt_ids"]),
        tuple(
            Branch(tuple(row[side]), (True,) * len(row[side]))
            for side in ("chosen_ids", "rejected_ids")
        ),
    )


def tree_of_example(row: Row) -> Tree:
    """Prompt and completion as one run of tokens; those with a label are scored."""
    scored = tuple(label != -100 for label in row["labels"])
    return Tree((), (Branch(tuple(row["input_ids"]), scored),))


@dataclass(frozen=True, slots=True)
class Packer:
    """A data collator: one batch becomes the packs it is computed in, none over the budget
    unless one row alone is."""

    collate: Collate  # trl's, for the tensors its losses and logs read
    tree_of: Callable[[Row], Tree]
    budget_tokens: int

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """`packs`, each with trl's tensors and a `layout`."""
        return {"packs": [batch for _, batch in self.packs(rows)]}

    def packs(self, rows: Sequence[Row]) -> list[tuple[list[int], Batch]]:
        """Each pack with the indices of its rows."""
        trees = [self.tree_of(row) for row in rows]
        packs = pack([tree.tokens for tree in trees], self.budget_tokens)
        return [(p, self._one([rows[i] for i in p], [trees[i] for i in p])) for p in packs]

    def _one(self, rows: list[Row], trees: list[Tree]) -> Batch:
        return {**self.collate(rows), "layout": layout_tensors(lay_out(trees))}


def default_budget_tokens() -> int:
    """Tokens of a pack. A small one stays in a processor's cache and keeps the peak memory low,
    and its matrices are already large enough; a CUDA device wants large ones (stated, not
    measured)."""
    return 2048 if torch.cuda.is_available() else 512
