"""The interface of a task: what a sequence is computed for.

The loop and the scheduler know tasks by this interface alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from engine.errors import BurnishError


class Task(Protocol):
    """An answer to generate (`GenerationTask`), a completion to score (`ScoringTask`) or a text to
    embed (`EmbeddingTask`).

    Most tasks take the logits of their tokens; one with `takes_hidden_states` takes the last hidden
    states, after the final norm, in their place.
    """

    takes_hidden_states: bool
    prompt_ids: tuple[int, ...]
    ids: list[int]  # the tokens generated so far
    max_tokens: int  # the most that may be generated
    cached_prompt_tokens: int  # tokens of the prompt that came from the prefix cache
    admitted_at: float | None  # monotonic seconds; None while it waits in the queue

    @property
    def ended(self) -> bool:
        """Return whether its caller has the terminal event or the result."""

    @property
    def is_answer(self) -> bool:
        """Return whether it counts towards the limit of waiting answers."""

    @property
    def reusable_tokens(self) -> int:
        """Leading tokens of the prompt whose logits are not wanted."""

    def wanted(self, begin: int, end: int) -> range:
        """Those of the tokens begin..end (of prompt and answer) whose logits are wanted."""

    def take(self, logits: Tensor, most_likely: Sequence[int]) -> None:
        """Use the logits (n, vocabulary) of the next n wanted tokens, and their argmax (n).

        Hidden states are (n, hidden size), and nothing is the most likely then.
        """

    def end_if_due(self) -> None:
        """End the task if it was cancelled or its deadline has passed."""

    def fail(self, error: BurnishError) -> None:
        """End with an error; only the first end counts."""
