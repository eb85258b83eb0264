"""The log-probabilities of a given completion, collected as its sequence is computed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import torch
from torch import Tensor

from engine.errors import BurnishError
from engine.prompts.render import Rendered
from engine.request import Score


class ScoringTask:
    """Implements `Task`: its `prompt_ids` are those of the prompt and the completion together."""

    is_answer = False
    takes_hidden_states = False

    def __init__(self, rendered: Rendered) -> None:
        self.prompt_ids = tuple(rendered.input_ids[:-1])  # the last token's logits score nothing
        self.ids: list[int] = []
        self.max_tokens = 0
        self.cached_prompt_tokens = 0
        self.admitted_at: float | None = None
        self.future: Future[Score] = Future()
        self._targets = rendered.completion_ids
        self._first = len(rendered.prompt_ids) - 1  # its logits score the first target
        self._logprobs: list[float] = []

    @property
    def ended(self) -> bool:
        """See `Task`."""
        return self.future.done()

    @property
    def reusable_tokens(self) -> int:
        """See `Task`."""
        return self._first

    def wanted(self, begin: int, end: int) -> range:
        """See `Task`: the tokens that precede a target."""
        return range(max(begin, self._first), end)

    def end_if_due(self) -> None:
        """See `Task`; a score has no deadline and cannot be cancelled."""

    def take(self, logits: Tensor, most_likely: Sequence[int]) -> None:
        """Collect the log-probabilities of the next n targets from logits (n, vocabulary)."""
        done = len(self._logprobs)
        targets = torch.tensor(self._targets[done : done + len(logits)])
        chosen = logits.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
        self._logprobs += chosen.tolist()
        if len(self._logprobs) == len(self._targets):
            with suppress(InvalidStateError):  # the watchdog has failed it
                self.future.set_result(Score(tuple(self._logprobs)))

    def fail(self, error: BurnishError) -> None:
        """See `Task`."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)
