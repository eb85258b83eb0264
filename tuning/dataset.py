"""Snapshot rows to token ids, through the one renderer. Knows no trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from engine.errors import InvalidInput
from engine.prompts.reasoning import join_reasoning
from engine.prompts.render import Renderer
from feedback_store.examples import Pair


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """Pairs as ids. `too_long` and `other_thoughts` name the conversations whose pairs were left
    out, because of their length or because their sides do not share a thought."""

    rows: tuple[dict[str, list[int]], ...]
    too_long: tuple[str, ...]
    other_thoughts: tuple[str, ...] = ()

    def for_dpo(self) -> Dataset:
        """Columns prompt_ids, chosen_ids, rejected_ids: what trl's preference collator reads."""
        return Dataset.from_list(list(self.rows))

    def for_sft(self) -> Dataset:
        """Columns input_ids, completion_mask: prompt and chosen answer, loss on the answer."""
        return Dataset.from_list([_chosen_alone(row) for row in self.rows])


def tokenize(
    renderer: Renderer,
    pairs: Sequence[Pair],
    max_sequence_tokens: int,
    *,
    thoughts_in_loss: bool = True,
) -> TokenizedPairs:
    """Render each pair once. Raises `InvalidInput` when no pair can be used.

    Without `thoughts_in_loss` the thought of a chain-of-thought answer is read as part of the
    prompt and not learnt. Both sides must then share it, as a correction and its original do; pairs
    that do not are left out.
    """
    kept: list[dict[str, list[int]]] = []
    too_long: list[str] = []
    other_thoughts: list[str] = []
    for pair in pairs:
        if not thoughts_in_loss and pair.chosen.thought != pair.rejected.thought:
            other_thoughts.append(pair.origin.conversation_id)
            continue
        row = _row(renderer, pair, thoughts_in_loss)
        longest = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        if len(row["prompt_ids"]) + longest > max_sequence_tokens:
            too_long.append(pair.origin.conversation_id)
        else:
            kept.append(row)
    if not kept:
        raise InvalidInput(_nothing_left(len(pairs), len(too_long), max_sequence_tokens))
    return TokenizedPairs(tuple(kept), tuple(too_long), tuple(other_thoughts))


def _row(renderer: Renderer, pair: Pair, thoughts_in_loss: bool) -> dict[str, list[int]]:
    prompt = renderer.prompt(pair.prompt)
    texts = [side.full_text for side in pair.sides]
    if pair.chosen.thought and not thoughts_in_loss:
        # The blank before the answer goes with the answer, as in the tokens the model makes
        lead = join_reasoning(pair.chosen.thought, "").rstrip()
        prompt += renderer.completion(lead, complete=False)
        texts = [text.removeprefix(lead) for text in texts]
    chosen, rejected = (
        renderer.completion(text, complete=side.complete)
        for text, side in zip(texts, pair.sides, strict=True)
    )
    return {
        "prompt_ids": list(prompt),
        "chosen_ids": list(chosen),
        "rejected_ids": list(rejected),
    }


def _nothing_left(pairs: int, too_long: int, max_sequence_tokens: int) -> str:
    if not pairs:
        return "the snapshot has no preference pairs on its training side"
    if not too_long:
        return f"in all {pairs} pairs the thoughts differ, and the snapshot leaves them unlearnt"
    return f"all {pairs} pairs are longer than {max_sequence_tokens} tokens"


def _chosen_alone(row: dict[str, list[int]]) -> dict[str, Any]:
    prompt, chosen = row["prompt_ids"], row["chosen_ids"]
    return {
        "input_ids": prompt + chosen,
        "completion_mask": [0] * len(prompt) + [1] * len(chosen),
    }
