"""The plan of each step: the next token of every running answer, and a chunk of a prompt.

Sequences join and leave between any two steps. A prompt is computed in chunks, and while answers
run a chunk may cost no more than the step would without it, so that a long prompt slows a running
stream to no less than half its pace. Knows sequences and the clock; knows no model and no text.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Protocol

from engine.errors import Overloaded
from engine.serving.sequence import ScheduledChunk, Sequence, SequenceStatus

# Tokens of a prompt in one chunk while no answer runs: enough to keep the processor busy
MAX_CHUNK_TOKENS = 512
MIN_CHUNK_TOKENS = 4  # so that prompts advance however slow the machine is
MAX_CHUNK_SECONDS = 0.5  # so that a newcomer waits no longer
SMOOTHING = 0.2  # weight of the newest step in the running means


class CacheManager(Protocol):
    """The keys and values of sequences, as the scheduler knows them."""

    def allocate(self, sequence: Sequence) -> int | None:
        """Reserve room for all tokens that the sequence may have.

        Returns how many of its tokens are cached already, or None while there is no room.
        """

    def publish(self, sequence: Sequence) -> None:
        """Let other sequences share the keys and values that are computed."""

    def could_share(self, sequence: Sequence, other: Sequence) -> bool:
        """Return whether two prompts have a beginning in common that is not published yet."""

    def free(self, sequence: Sequence) -> None:
        """Free the room of a sequence."""


class Scheduler:
    """The queue of waiting sequences, the running ones, and the pace measured so far.

    Used by one thread at a time.
    """

    def __init__(self, cache: CacheManager, *, max_rows: int) -> None:
        self._cache = cache
        self._max_rows = max_rows
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._decode_seconds = 0.0  # of a step without a chunk of a prompt
        self._token_seconds = 0.0  # of one more token of a prompt

    def schedule(self) -> list[ScheduledChunk]:
        """The chunks of the next step: first one of each running answer, then of prompts."""
        self._drop_ended()
        decoding = [s for s in self.running if s.status is SequenceStatus.DECODE]
        decoding.sort(key=lambda s: s.adapter_digest or "")  # neighbours share a read of an adapter
        chunks = [ScheduledChunk(s, s.computed, s.tokens) for s in decoding]
        budget = self._prefill_budget(beside_answers=bool(decoding))
        while budget > 0 and (sequence := self._next_prompt(chunks)):
            end = sequence.tokens
            if not sequence.whole_prompt:
                # Half of it while others wait, so that a short prompt need not wait for a long one
                others = self._others_wait(sequence)
                most = max(MIN_CHUNK_TOKENS, budget // 2) if others else budget
                end = min(end, sequence.computed + most)
            chunks.append(ScheduledChunk(sequence, sequence.computed, end))
            budget -= end - sequence.computed
        return chunks

    def complete(self, chunks: list[ScheduledChunk], seconds: float) -> None:
        """Record a computed step: publish pages that are full, and measure the pace."""
        for chunk in chunks:
            chunk.sequence.computed = chunk.end
            self._cache.publish(chunk.sequence)
        prompt_tokens = _prompt_tokens(chunks)
        if prompt_tokens == 0:
            self._decode_seconds = _smoothed(self._decode_seconds, seconds)
        else:
            decodes = any(chunk.tokens == 1 for chunk in chunks)
            spent = seconds - (self._decode_seconds if decodes else 0.0)
            self._token_seconds = _smoothed(self._token_seconds, max(spent, 0) / prompt_tokens)

    def expected_seconds(self, chunks: list[ScheduledChunk]) -> float:
        """The time that a step should take at the pace measured so far."""
        return self._decode_seconds + _prompt_tokens(chunks) * self._token_seconds

    @property
    def idle(self) -> bool:
        """Return whether no sequence waits or runs."""
        return not self.waiting and not self.running

    def _drop_ended(self) -> None:
        # Read once: another thread may end a sequence between two looks at its status
        ended = [s for s in self.running if s.status is SequenceStatus.ENDED]
        for sequence in ended:
            self._cache.free(sequence)
        self.running = [s for s in self.running if s not in ended]
        if any(s.status is SequenceStatus.ENDED for s in self.waiting):
            self.waiting = deque(s for s in self.waiting if s.status is not SequenceStatus.ENDED)

    def _prefill_budget(self, *, beside_answers: bool) -> int:
        """Tokens of prompts that the next step may compute."""
        if beside_answers and not self._decode_seconds:
            return 0  # the cost of a chunk is measured against a step without one
        if not self._token_seconds:
            return MAX_CHUNK_TOKENS if not beside_answers else MIN_CHUNK_TOKENS
        seconds = self._decode_seconds if beside_answers else MAX_CHUNK_SECONDS
        return max(MIN_CHUNK_TOKENS, min(MAX_CHUNK_TOKENS, int(seconds / self._token_seconds)))

    def _next_prompt(self, chunks: list[ScheduledChunk]) -> Sequence | None:
        """A prompt that is not in this step yet: one that was begun before, else a newcomer."""
        taken = {id(chunk.sequence) for chunk in chunks}
        for sequence in self.running:
            if sequence.status is SequenceStatus.PREFILL and id(sequence) not in taken:
                return sequence
        return self._admit(chunks)

    def _others_wait(self, sequence: Sequence) -> bool:
        return bool(self.waiting) or any(
            s.status is SequenceStatus.PREFILL and s is not sequence for s in self.running
        )

    def _admit(self, chunks: list[ScheduledChunk]) -> Sequence | None:
        """Admit the first waiting sequence of the user with the fewest running ones.

        One whose prompt begins like one being computed now waits: it will find those pages.
        """
        if len(self.running) >= self._max_rows or not self.waiting:
            return None
        prompts = [chunk.sequence for chunk in chunks if chunk.tokens > 1]
        running = Counter(s.user for s in self.running)
        for sequence in sorted(self.waiting, key=lambda s: running[s.user]):
            if any(self._cache.could_share(sequence, prompt) for prompt in prompts):
                continue
            cached = self._cache.allocate(sequence)
            if cached is None:
                if not self.running:  # adapters took the room that it was promised when queued
                    sequence.task.fail(Overloaded("the cache has no room for it beside adapters"))
                return None  # none that needs less room overtakes it
            sequence.admitted, sequence.computed = True, cached
            sequence.task.cached_prompt_tokens = cached - sequence.virtual_tokens
            sequence.task.admitted_at = time.monotonic()
            self.running.append(sequence)  # before it leaves the queue, so that it is always found
            self.waiting.remove(sequence)
            return sequence
        return None


def _prompt_tokens(chunks: list[ScheduledChunk]) -> int:
    return sum(chunk.tokens for chunk in chunks if chunk.tokens > 1)


def _smoothed(mean: float, newest: float) -> float:
    return newest if not mean else (1 - SMOOTHING) * mean + SMOOTHING * newest
