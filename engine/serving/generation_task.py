"""One answer while it is generated: logits go in, the events of its stream come out.

Knows sampling, text and the stream; knows nothing of batches, caches or models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from engine.errors import BurnishError, DeadlineExceeded
from engine.prompts.interface import ChatRenderer
from engine.request import (
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
)
from engine.serving.grammar import GrammarMatcher
from engine.serving.prompt import TokenizedPrompt
from engine.serving.prompt_reader import PromptReader
from engine.serving.sampler import Sampler, token_logprobs
from engine.serving.stream import QueuedStream


class GenerationTask:
    """Implements `Task`: the tokens, the text and the stream of one request."""

    is_answer = True
    takes_hidden_states = False

    def __init__(
        self,
        request: GenerationRequest,
        prompt: TokenizedPrompt,
        renderer: ChatRenderer,
        grammar: GrammarMatcher | None = None,
    ) -> None:
        is_raw = request.prompt is not None
        sampling = request.sampling
        self.prompt_ids = prompt.ids
        self.ids: list[int] = []
        self.stream = QueuedStream(len(prompt.ids))
        self.ended = False
        self.cached_prompt_tokens = 0
        self.admitted_at: float | None = None
        self.max_tokens = min(sampling.max_new_tokens, prompt.room)
        self._end_ids = frozenset() if sampling.ignore_eos else renderer.end_ids
        self._sampler = Sampler(sampling, grammar)
        self._text = renderer.detokenizer(sampling.stop, prompt.prefill_ids, prompt.opening)
        self._token_text = renderer.token_text if is_raw else lambda i: renderer.decode([i])
        self._top = sampling.logprobs
        self._reader: PromptReader | None = None
        if request.echo:
            given = request.prompt
            text = given if isinstance(given, str) else renderer.decode(prompt.ids)
            self._reader = PromptReader(text, prompt.ids, self._token_text, self._top)
        self._logprobs: list[TokenLogprob] = []
        self._logprobs_shown = 0
        timeout = request.timeout_seconds
        self._queued_at = time.monotonic()
        self._deadline = None if timeout is None else self._queued_at + timeout

    @property
    def reusable_tokens(self) -> int:
        """See `Task`; the logits of the prompt's last token are wanted, or those of all."""
        return len(self.prompt_ids) - 1 if self._reader is None else self._reader.first_wanted

    def wanted(self, begin: int, end: int) -> range:
        """See `Task`: the tokens of the prompt to be read, its last one and those that follow."""
        return range(max(begin, self.reusable_tokens), end)

    def end_if_due(self) -> None:
        """See `Task`."""
        if self.stream.cancelled:
            self.finish("cancelled")
        elif self._deadline is not None and time.monotonic() > self._deadline:
            self.fail(DeadlineExceeded("the answer was not done by its deadline"))

    def take(self, logits: Tensor, most_likely: Sequence[int]) -> None:
        """Choose the next token from logits (1, vocabulary) and publish its text.

        While a prompt is read, the logits are those of its tokens; the last ones choose.
        """
        if self._reader is not None and not self._reader.done:
            self._reader.take(logits)
            if not self._reader.done:
                return
            self.stream.put(self._reader.event())
        self._choose(logits[-1], most_likely[-1])

    def _choose(self, logits: Tensor, most_likely: int) -> None:
        if self._sampler.is_greedy:
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
        if self._text.stopped or self._sampler.is_complete:
            self.finish("stop")
        elif len(self.ids) >= self.max_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """End with a `Finished` event; only the first end counts."""
        if self.ended:
            return
        rest = self._text.finish()  # if it raises, the stream has not ended and `fail` ends it
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
                self._text.stopped_at,
                None if self.admitted_at is None else self.admitted_at - self._queued_at,
            )
        )

    def fail(self, error: BurnishError) -> None:
        """End with a `Failed` event that keeps the text so far; only the first end counts."""
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
            self._token_text(token_id),
            logprob,
            tuple((other, self._token_text(other), value) for other, value in likely),
        )
