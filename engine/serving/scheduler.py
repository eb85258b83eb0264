"""Which tokens the next step computes: every running answer's next one, and a piece of a prompt.

Sequences join and leave between any two steps. A prompt is computed in chunks, and while answers
run a chunk may cost no more than the step would without it, so that nobody's long prompt slows a
running stream to less than half its pace. Knows sequences and pages; knows no model and no text.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum, auto

from engine.adapters.lora import LoraAdapter
from engine.errors import Overloaded
from engine.serving.answer import GenerationTask
from engine.serving.kv_cache import VIRTUAL_ID, BlockTable, PagedCache, PinnedPrefix
from engine.serving.scoring import ScoringTask

# Tokens of a prompt computed at once while no answer runs: enough to keep the processor busy.
MAX_CHUNK_TOKENS = 512
MIN_CHUNK_TOKENS = 4  # so that prompts advance however slow the machine
MAX_CHUNK_SECONDS = 0.5  # a chunk is also kept below this, so that a newcomer is seen soon
SMOOTHING = 0.2  # weight of the newest step in the running means


class SequenceStatus(Enum):
    """Where a sequence stands."""

    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """A sequence of tokens, what it is computed for, and how far it is.

    Where its adapter is a soft prompt it begins with virtual tokens, which count as its tokens.
    """

    work: GenerationTask | ScoringTask
    adapter_digest: str | None
    adapter: LoraAdapter | None
    user: str
    whole_prompt: bool  # a prefix language model: its prompt cannot be cut into chunks
    prefix: PinnedPrefix | None = None
    block_table: BlockTable | None = None
    computed: int = 0  # tokens whose keys and values are in the cache
    prompt_ids: tuple[int, ...] = field(init=False)  # the virtual ones included

    def __post_init__(self) -> None:
        self.prompt_ids = (VIRTUAL_ID,) * self.virtual_tokens + tuple(self.work.prompt_ids)

    @property
    def virtual_tokens(self) -> int:
        """How many of its tokens are an adapter's."""
        return 0 if self.prefix is None else self.prefix.tokens

    @property
    def status(self) -> SequenceStatus:
        """Derived, so that it cannot disagree with the rest."""
        if self.work.ended:
            return SequenceStatus.ENDED
        if self.block_table is None:
            return SequenceStatus.WAITING
        return SequenceStatus.PREFILL if self.computed < self.tokens - 1 else SequenceStatus.DECODE

    def ids(self, begin: int, end: int) -> list[int]:
        """Tokens begin..end of prompt and answer."""
        prompt = self.prompt_ids
        return [
            *prompt[begin:end],
            *self.work.ids[max(0, begin - len(prompt)) : max(0, end - len(prompt))],
        ]

    @property
    def tokens(self) -> int:
        """How many they are."""
        return len(self.prompt_ids) + len(self.work.ids)

    @property
    def most_tokens(self) -> int:
        """How many they may become."""
        return len(self.prompt_ids) + self.work.max_tokens


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """The tokens begin..end of a sequence that one step computes."""

    sequence: Sequence
    begin: int
    end: int

    @property
    def completes(self) -> bool:
        """Whether the last token's logits are the next token's."""
        return self.end == self.sequence.tokens


class Scheduler:
    """The waiting, the running, and the pace measured so far. One thread at a time."""

    def __init__(self, cache: PagedCache, *, max_rows: int) -> None:
        self._cache = cache
        self._max_rows = max_rows
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._decode_seconds = 0.0  # of a step without a prompt's chunk
        self._token_seconds = 0.0  # of one more token of a prompt

    def schedule(self) -> list[ScheduledChunk]:
        """The next step."""
        self._drop_ended()
        decoding = [s for s in self.running if s.status is SequenceStatus.DECODE]
        decoding.sort(key=lambda s: s.adapter_digest or "")  # neighbours share a read of an adapter
        chunks = [ScheduledChunk(s, s.computed, s.tokens) for s in decoding]
        room = self._prefill_budget(beside_answers=bool(decoding))
        while room > 0 and (sequence := self._next_prompt(chunks)):
            end = sequence.tokens
            if not sequence.whole_prompt:
                # Half, where others wait: a short prompt is not to stand behind a long one
                share = max(MIN_CHUNK_TOKENS, room // 2) if self._others_wait(sequence) else room
                end = min(end, sequence.computed + share)
            chunks.append(ScheduledChunk(sequence, sequence.computed, end))
            room -= end - sequence.computed
        return chunks

    def complete(self, chunks: list[ScheduledChunk], seconds: float) -> None:
        """A step was computed: pages that are full may be shared, and the pace is known better."""
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed = chunk.end
            assert sequence.block_table is not None
            self._cache.publish(sequence.block_table, sequence.ids, sequence.computed)
        prompt_tokens = _prompt_tokens(chunks)
        if prompt_tokens == 0:
            self._decode_seconds = _smoothed(self._decode_seconds, seconds)
        else:
            decodes = any(s.end - s.begin == 1 for s in chunks)
            spent = seconds - (self._decode_seconds if decodes else 0.0)
            self._token_seconds = _smoothed(self._token_seconds, max(spent, 0) / prompt_tokens)

    def expected_seconds(self, chunks: list[ScheduledChunk]) -> float:
        """What a step should take at the pace measured so far."""
        return self._decode_seconds + _prompt_tokens(chunks) * self._token_seconds

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def _drop_ended(self) -> None:
        # Asked once: another thread may end a sequence between two looks at its state
        ended = [s for s in self.running if s.status is SequenceStatus.ENDED]
        for sequence in ended:
            assert sequence.block_table is not None
            self._cache.free(sequence.block_table)
        self.running = [s for s in self.running if s not in ended]
        if any(s.status is SequenceStatus.ENDED for s in self.waiting):
            self.waiting = deque(s for s in self.waiting if s.status is not SequenceStatus.ENDED)

    def _prefill_budget(self, *, beside_answers: bool) -> int:
        """Tokens of prompts that the next step may compute."""
        if beside_answers and not self._decode_seconds:
            return 0  # one step of theirs alone tells what a chunk may cost
        if not self._token_seconds:
            return MAX_CHUNK_TOKENS if not beside_answers else MIN_CHUNK_TOKENS
        seconds = self._decode_seconds if beside_answers else MAX_CHUNK_SECONDS
        return max(MIN_CHUNK_TOKENS, min(MAX_CHUNK_TOKENS, int(seconds / self._token_seconds)))

    def _next_prompt(self, chunks: list[ScheduledChunk]) -> Sequence | None:
        """A prompt that this step does not work on yet: one begun before, else a newcomer."""
        taken = {id(chunk.sequence) for chunk in chunks}
        for sequence in self.running:
            if sequence.status is SequenceStatus.PREFILL and id(sequence) not in taken:
                return sequence
        return self._admit(chunks)

    def _others_wait(self, sequence: Sequence) -> bool:
        reading = (
            s for s in self.running if s.status is SequenceStatus.PREFILL and s is not sequence
        )
        return bool(self.waiting) or any(reading)

    def _admit(self, chunks: list[ScheduledChunk]) -> Sequence | None:
        """The next newcomer, with its pages: of the user with the fewest running, the first.

        One whose prompt begins like one being computed now waits: it will find those pages.
        """
        if len(self.running) >= self._max_rows or not self.waiting:
            return None
        busy = Counter(s.user for s in self.running)
        for sequence in sorted(self.waiting, key=lambda s: busy[s.user]):
            if any(
                self._cache.could_share(
                    sequence.prompt_ids,
                    sequence.adapter_digest,
                    s.sequence.prompt_ids,
                    s.sequence.adapter_digest,
                )
                for s in chunks
                if s.end - s.begin > 1
            ):
                continue
            block_table = self._cache.allocate(
                sequence.adapter_digest,
                sequence.prompt_ids,
                sequence.most_tokens,
                reusable=sequence.virtual_tokens + sequence.work.reusable_tokens,
            )
            if block_table is None:
                if not self.running:  # held prefixes took what it was promised when it was queued
                    sequence.work.fail(Overloaded("the cache has no room for it beside adapters"))
                return None  # nobody overtakes the one that needs more room
            cached = block_table.cached_tokens
            if sequence.prefix is not None:
                cached = self._cache.copy_prefix(block_table, sequence.prefix)
            sequence.block_table, sequence.computed = block_table, cached
            sequence.work.cached_prompt_tokens = cached - sequence.virtual_tokens
            self.running.append(sequence)  # first: who counts the users of an adapter sees it
            self.waiting.remove(sequence)
            return sequence
        return None


def _prompt_tokens(chunks: list[ScheduledChunk]) -> int:
    return sum(s.end - s.begin for s in chunks if s.end - s.begin > 1)


def _smoothed(mean: float, newest: float) -> float:
    return newest if not mean else (1 - SMOOTHING) * mean + SMOOTHING * newest
