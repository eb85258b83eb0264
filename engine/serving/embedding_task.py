"""The embedding of a text: the mean of its hidden states, summed up as they are computed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import torch
from torch import Tensor

from engine.errors import BurnishError
from engine.request import TextEmbedding


class EmbeddingTask:
    """Implements `Task`: the hidden states of all tokens are wanted, and none is generated."""

    is_answer = False
    takes_hidden_states = True
    reusable_tokens = 0

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.prompt_ids = ids
        self.ids: list[int] = []
        self.max_tokens = 0
        self.cached_prompt_tokens = 0
        self.admitted_at: float | None = None
        self.future: Future[TextEmbedding] = Future()
        self._sum: Tensor | float = 0.0  # in float64, so that chunks of any size give the same
        self._summed = 0  # tokens

    @property
    def ended(self) -> bool:
        """See `Task`."""
        return self.future.done()

    def wanted(self, begin: int, end: int) -> range:
        """See `Task`: every token."""
        return range(begin, end)

    def end_if_due(self) -> None:
        """See `Task`; an embedding has no deadline and cannot be cancelled."""

    def take(self, hidden: Tensor, most_likely: Sequence[int]) -> None:
        """Add the hidden states (n, hidden size) of the next n tokens; after the last, scale.

        Raises `ValueError` where they are not finite.
        """
        self._sum = self._sum + hidden.double().sum(0)
        self._summed += len(hidden)
        if self._summed < len(self.prompt_ids):
            return
        if not bool(self._sum.isfinite().all()):
            raise ValueError("a hidden state is not a finite number")
        vector = torch.nn.functional.normalize(self._sum, dim=0)  # that of the mean is the same
        result = TextEmbedding(array("f", vector.tolist()), len(self.prompt_ids))
        with suppress(InvalidStateError):  # the watchdog has failed it
            self.future.set_result(result)

    def fail(self, error: BurnishError) -> None:
        """See `Task`."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)
