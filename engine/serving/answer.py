"""One answer while it is made: logits go in, the reader's events come out.

Knows sampling, text and the reader; knows nothing of batches, caches or models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from engine.errors import BurnishError
from engine.prompts.detokenizer import Detokenizer
from engine.request import (
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
)
from engine.serving.prompt import TokenizedPrompt
from engine.serving.sampler import Sampler, token_logprobs
from engine.serving.stream import QueuedStream


class AnswerRenderer(Protocol):
    """What an answer needs of a renderer."""

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, control tokens left out."""
        ...

    def detokenizer(
        self, stop: tuple[str, ...] = (), prefill_ids: Sequence[int] = (), opening: str = ""
    ) -> Detokenizer:
        """The growing text of one answer, which goes on from `prefill_ids` or from `opening`."""
        ...


class GenerationTask:
    """The tokens, the text and the stream of one request."""

    def __init__(
        self,
        request: GenerationRequest,
        prompt: TokenizedPrompt,
        renderer: AnswerRenderer,
    ) -> None:
        sampling = request.sampling
        self.prompt_ids = prompt.ids
        self.ids: list[int] = []
        self.stream = QueuedStream()
        self.ended = False
        self.cached_prompt_tokens = 0
        self.max_tokens = min(sampling.max_new_tokens, prompt.room)
        self._end_ids = frozenset() if sampling.ignore_eos else renderer.end_ids
        self._sampler = Sampler(sampling)
        self._text = renderer.detokenizer(sampling.stop, prompt.prefill_ids, prompt.opening)
        self._decode = renderer.decode
        self._top = sampling.logprobs
        self._logprobs: list[TokenLogprob] = []
        self._logprobs_shown = 0
        timeout = request.timeout_seconds
        self._deadline = None if timeout is None else time.monotonic() + timeout

    @property
    def reusable_tokens(self) -> int:
        """Prompt tokens that need not be computed anew; the last one's logits are wanted."""
        return len(self.prompt_ids) - 1

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return self._deadline is not None and time.monotonic() > self._deadline

    @property
    def is_greedy(self) -> bool:
        """Whether the next token is just the most likely one."""
        return self._sampler.is_greedy

    def take(self, logits: Tensor, most_likely: int | None = None) -> None:
        """Choose the next token from logits (vocabulary,) and tell the reader.

        `most_likely`: their argmax, where the caller knows it and `is_greedy` holds.
        """
        if most_likely is not None:
            token_id = most_likely
        else:
            token_id = self._sampler(logits, [*self.prompt_ids, *self.ids])
        self.ids.append(token_id)
        if self._top is not None:
            self._logprobs.append(self._logprob(logits, token_id, self._top))
        if token_id in self._end_ids:
            self.finish("stop")
            return
        self._show(self._text.push(token_id))
        if self._text.stopped:
            self.finish("stop")
        elif len(self.ids) >= self.max_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """End well; only the first end counts."""
        if self.ended:
            return
        rest = self._text.finish()  # may raise, and then `fail` is still to be heard
        self.ended = True
        self._show(rest)
        self.stream.put(
            Finished(
                reason,
                self._text.text,
                len(self.prompt_ids),
                len(self.ids),
                tuple(self._logprobs),
                self.cached_prompt_tokens,
            )
        )

    def fail(self, error: BurnishError) -> None:
        """End badly; the text so far is kept."""
        if self.ended:
            return
        self.ended = True
        self.stream.put(Failed(error, self._text.text))

    def _show(self, text: str) -> None:
        if text:
            self.stream.put(TextDelta(text, tuple(self._logprobs[self._logprobs_shown :])))
            self._logprobs_shown = len(self._logprobs)

    def _logprob(self, logits: Tensor, token_id: int, top: int) -> TokenLogprob:
        logprob, likely = token_logprobs(logits, token_id, top)
        return TokenLogprob(
            token_id,
            self._decode([token_id]),
            logprob,
            tuple((other, self._decode([other]), value) for other, value in likely),
        )
