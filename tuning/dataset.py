"""Snapshot rows to token ids, through the one renderer. Knows no trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from engine.errors import InvalidInput
from engine.prompts.render import Renderer
from feedback_store.snapshot import PreferenceRow


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """Pairs as ids; `too_long` names the conversations whose pairs were left out."""

    rows: tuple[dict[str, list[int]], ...]
    too_long: tuple[str, ...]

    def for_dpo(self) -> Dataset:
        """Columns prompt_ids, chosen_ids, rejected_ids: what trl's preference collator reads."""
        return Dataset.from_list(list(self.rows))

    def for_sft(self) -> Dataset:
        """Columns input_ids, completion_mask: prompt and chosen answer, loss on the answer."""
        return Dataset.from_list([_chosen_alone(row) for row in self.rows])


def tokenize(
    renderer: Renderer, rows: Sequence[PreferenceRow], max_sequence_tokens: int
) -> TokenizedPairs:
    """Render each pair once. Raises `InvalidInput` when no pair is short enough."""
    kept: list[dict[str, list[int]]] = []
    too_long: list[str] = []
    for row in rows:
        chosen = renderer.pair(row.prompt, row.chosen, complete=row.chosen_complete)
        rejected = renderer.completion(row.rejected, complete=row.rejected_complete)
        longest = max(len(chosen.completion_ids), len(rejected))
        if len(chosen.prompt_ids) + longest > max_sequence_tokens:
            too_long.append(row.conversation_id)
            continue
        kept.append(
            {
                "prompt_ids": list(chosen.prompt_ids),
                "chosen_ids": list(chosen.completion_ids),
                "rejected_ids": list(rejected),
            }
        )
    if not kept:
        raise InvalidInput(f"all {len(rows)} pairs are longer than {max_sequence_tokens} tokens")
    return TokenizedPairs(tuple(kept), tuple(too_long))


def _chosen_alone(row: dict[str, list[int]]) -> dict[str, Any]:
    prompt, chosen = row["prompt_ids"], row["chosen_ids"]
    return {
        "input_ids": prompt + chosen,
        "completion_mask": [0] * len(prompt) + [1] * len(chosen),
    }
