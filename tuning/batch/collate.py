"""Collate dataset rows into packs: trl's own batch of each, and the layout it is computed in.

The one place that knows the columns: prompt_ids, chosen_ids, rejected_ids (and ref_*_logps) for
pairs; input_ids and labels (-100 where nothing is scored) for fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.models.architecture import CausalPositions, Positions
from tuning.batch.forward import layout_tensors
from tuning.batch.plan import Completion, TrainingPrompt, lay_out, pack

DatasetRow = Mapping[str, Any]
Batch = dict[str, Any]
Collate = Callable[[list[DatasetRow]], Batch]


def prompt_of_pair(row: DatasetRow) -> TrainingPrompt:
    """A prompt with its chosen and its rejected completion, every token of which is scored."""
    return TrainingPrompt(
        tuple(row["prompt_ids"]),
        tuple(
            Completion(tuple(row[side]), (True,) * len(row[side]))
            for side in ("chosen_ids", "rejected_ids")
        ),
    )


def prompt_of_example(row: DatasetRow) -> TrainingPrompt:
    """Prompt and completion as one run of tokens; those with a label are scored."""
    scored = tuple(label != -100 for label in row["labels"])
    return TrainingPrompt((), (Completion(tuple(row["input_ids"]), scored),))


@dataclass(frozen=True, slots=True)
class Packer:
    """A data collator that divides a batch into packs.

    None is over the budget, unless a single row is."""

    collate: Collate  # trl's, for the tensors its losses and logs read
    to_prompt: Callable[[DatasetRow], TrainingPrompt]
    budget_tokens: int
    positions: Positions = field(default_factory=CausalPositions)  # the model's

    def __call__(self, rows: Sequence[DatasetRow]) -> Batch:
        """`packs`, each with trl's tensors and a `layout`."""
        return {"packs": [batch for _, batch in self.packs(rows)]}

    def packs(self, rows: Sequence[DatasetRow]) -> list[tuple[list[int], Batch]]:
        """Each pack with the indices of its rows."""
        prompts = [self.to_prompt(row) for row in rows]
        packs = pack([prompt.tokens for prompt in prompts], self.budget_tokens)
        return [(p, self._one([rows[i] for i in p], [prompts[i] for i in p])) for p in packs]

    def _one(self, rows: list[DatasetRow], prompts: list[TrainingPrompt]) -> Batch:
        return {**self.collate(rows), "layout": layout_tensors(lay_out(prompts, self.positions))}
