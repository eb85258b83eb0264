"""The prompt of a request that asks for it back: its text and its tokens' log-probabilities.

Knows logits and token ids; knows nothing of sampling, of the answer or of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from engine.request import PromptRead, TokenLogprob

SCORED_ROWS = 64  # a chunk of a prompt may have hundreds, each as long as the vocabulary


class PromptReader:
    """Collects what `PromptRead` has while the prompt is computed, chunk by chunk."""

    def __init__(
        self, text: str, ids: Sequence[int], token_text: Callable[[int], str], top: int | None
    ) -> None:
        """`top`: alternatives for each token; None: no log-probabilities are wanted."""
        self._text = text
        self._ids = ids
        self._token_text = cache(token_text)  # a prompt repeats its tokens
        self._top = top
        self.first_wanted = len(ids) - 1 if top is None else 0  # the first whose logits are wanted
        self._rows = self.first_wanted  # tokens whose logits have come, or are not wanted
        self._logprobs: list[TokenLogprob] = []

    @property
    def done(self) -> bool:
        """Return whether the last token's logits have come, which nothing here uses."""
        return self._rows == len(self._ids)

    def take(self, logits: Tensor) -> None:
        """Score tokens by the logits (n, vocabulary) of the next n tokens before each of them."""
        begin, self._rows = self._rows, self._rows + len(logits)
        targets = self._ids[begin + 1 : self._rows + 1]
        for at in range(0, len(targets), SCORED_ROWS):
            some = targets[at : at + SCORED_ROWS]
            self._logprobs += self._scored(logits[at : at + len(some)], some)

    def event(self) -> PromptRead:
        """The whole, once it is `done`."""
        return PromptRead(self._text, self._token_text(self._ids[0]), tuple(self._logprobs))

    def _scored(self, logits: Tensor, targets: Sequence[int]) -> list[TokenLogprob]:
        if self._top is None:
            return []
        logprobs = logits.float().log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(targets)[:, None])[:, 0].tolist()
        values, ids = logprobs.topk(min(self._top, logprobs.shape[1]))
        text = self._token_text
        return [
            TokenLogprob(
                target,
                text(target),
                logprob,
                tuple((i, text(i), value) for i, value in zip(likely, theirs, strict=True)),
            )
            for target, logprob, likely, theirs in zip(
                targets, chosen, ids.tolist(), values.tolist(), strict=True
            )
        ]
