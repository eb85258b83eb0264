"""Training data as token ids: the rows that methods train on. Knows no renderer and no trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Ids = list[int]
ExampleKind = Literal["pairs", "demonstrations", "unpaired"]  # as a snapshot's files are called
SftAnswers = Literal["chosen", "demonstrations", "both"]


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """Pairs as rows of prompt_ids, chosen_ids and rejected_ids.

    `too_long` and `other_thoughts` name the conversations whose pairs were left out, because of
    their length or because their sides do not share a thought.
    """

    rows: tuple[dict[str, Ids], ...] = ()
    too_long: tuple[str, ...] = ()
    other_thoughts: tuple[str, ...] = ()

    @property
    def chosen(self) -> list[dict[str, Ids]]:
        """The chosen answers as rows of prompt_ids and completion_ids."""
        return [
            {"prompt_ids": row["prompt_ids"], "completion_ids": row["chosen_ids"]}
            for row in self.rows
        ]


@dataclass(frozen=True, slots=True)
class TokenizedAnswers:
    """Single answers as rows of prompt_ids, completion_ids and, where judged, label."""

    rows: tuple[dict[str, Any], ...] = ()
    too_long: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All rows that the methods of one run train on."""

    pairs: TokenizedPairs
    demonstrations: TokenizedAnswers = TokenizedAnswers()
    unpaired: TokenizedAnswers = TokenizedAnswers()
    sft_answers: SftAnswers = "both"
    replay: Sequence[dict[str, Ids]] = ()
    replay_too_long: int = 0
    ai_pairs: TokenizedPairs = TokenizedPairs()  # for the preference losses alone
    max_sequence_tokens: int = 1024
    blocks: Sequence[Ids] = ()  # of plain text, for continued pretraining
    # Each prompt of the training pairs once, of at most so many tokens
    distinct_prompts: Callable[[int], Sequence[Ids]] = lambda max_tokens: ()

    @property
    def preferences(self) -> list[dict[str, Ids]]:
        """The pairs of people and of the AI judge."""
        return [*self.pairs.rows, *self.ai_pairs.rows]

    @property
    def answers(self) -> list[dict[str, Ids]]:
        """The snapshot's answers for SFT, each once: a correction is both chosen and demonstrated.

        Rows of prompt_ids and completion_ids.
        """
        rows = {
            "chosen": self.pairs.chosen,
            "demonstrations": list(self.demonstrations.rows),
            "both": [*self.pairs.chosen, *self.demonstrations.rows],
        }[self.sft_answers]
        once = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])): row for row in rows}
        return list(once.values())

    @property
    def too_long(self) -> list[str]:
        """The conversation of each example that was left out because of its length."""
        parts = (self.pairs, self.demonstrations, self.unpaired, self.ai_pairs)
        return [conversation for part in parts for conversation in part.too_long]

    @property
    def good_and_bad(self) -> tuple[int, int]:
        """The numbers of lone judgements that say good and that say bad."""
        good = sum(row["label"] for row in self.unpaired.rows)
        return good, len(self.unpaired.rows) - good
