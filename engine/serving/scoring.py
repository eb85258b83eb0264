"""The log-probabilities of a given completion, gathered as its sequence is computed."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import torch
from torch import Tensor

from engine.errors import BurnishError
from engine.prompts.render import Rendered
from engine.request import Score


class ScoringTask:
    """A completion to score. Its prompt, to the scheduler, is prompt and completion together."""

    def __init__(self, rendered: Rendered) -> None:
        self.prompt_ids = tuple(rendered.input_ids[:-1])  # the last token's logits score nothing
        self.ids: list[int] = []
        self.max_tokens = 0
        self.cached_prompt_tokens = 0
        self.future: Future[Score] = Future()
        self._targets = rendered.completion_ids
        self._first = len(rendered.prompt_ids) - 1  # whose logits score the first target
        self._logprobs: list[float] = []

    @property
    def ended(self) -> bool:
        """Whether the caller has its answer, or went away."""
        return self.future.done()

    @property
    def reusable_tokens(self) -> int:
        """Prompt tokens whose logits score nothing."""
        return self._first

    def wanted(self, begin: int, end: int) -> range:
        """Of tokens begin..end, those whose logits score a target."""
        return range(max(begin, self._first), end)

    def take(self, logits: Tensor) -> None:
        """Logits (n, vocabulary) of the next n wanted tokens."""
        done = len(self._logprobs)
        targets = torch.tensor(self._targets[done : done + len(logits)])
        chosen = logits.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
        self._logprobs += chosen.tolist()
        if len(self._logprobs) == len(self._targets):
            with suppress(InvalidStateError):  # the watchdog was faster
                self.future.set_result(Score(tuple(self._logprobs)))

    def fail(self, error: BurnishError) -> None:
        """End badly; only the first end counts."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)
