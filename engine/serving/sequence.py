"""A sequence of tokens that the engine computes, and the chunks of it that a step computes.

Knows tokens and how many of them are computed; knows nothing of pages, models or time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from engine.serving.kv_cache import VIRTUAL_ID, BlockTable
from engine.serving.task import Task


class SequenceStatus(Enum):
    """The stages of a sequence."""

    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()
    ENDED = auto()


class Adapter(Protocol):
    """A loaded adapter, as the loop and the scheduler know it."""

    @property
    def digest(self) -> str:
        """Digest of its bundle."""

    @property
    def virtual_tokens(self) -> int:
        """The room it needs in the cache: tokens before the prompt of each of its sequences."""

    def close(self) -> None:
        """Free its memory. Runs on the engine's thread, when no sequence uses it."""


@dataclass(slots=True, eq=False)
class Sequence:
    """The tokens of a task, and how many of them are computed.

    The virtual tokens of its adapter come first and count as its tokens.
    """

    task: Task
    adapter: Adapter | None
    user: str = ""
    whole_prompt: bool = False  # its prompt must be computed in one chunk
    admitted: bool = False
    computed: int = 0  # tokens whose keys and values are in the cache
    block_table: BlockTable | None = None  # where the cache has pages
    prompt_ids: tuple[int, ...] = field(init=False)  # the virtual ones included

    def __post_init__(self) -> None:
        self.prompt_ids = (VIRTUAL_ID,) * self.virtual_tokens + tuple(self.task.prompt_ids)

    @property
    def adapter_digest(self) -> str | None:
        """The digest of its adapter; None for the base model."""
        return None if self.adapter is None else self.adapter.digest

    @property
    def virtual_tokens(self) -> int:
        """Number of leading tokens that belong to its adapter."""
        return 0 if self.adapter is None else self.adapter.virtual_tokens

    @property
    def reusable_tokens(self) -> int:
        """Leading tokens whose logits are not wanted."""
        return self.virtual_tokens + self.task.reusable_tokens

    @property
    def status(self) -> SequenceStatus:
        """The stage, derived from the rest so that it cannot disagree with it."""
        if self.task.ended:
            return SequenceStatus.ENDED
        if not self.admitted:
            return SequenceStatus.WAITING
        if self.computed < self.tokens - 1:
            return SequenceStatus.PREFILL
        return SequenceStatus.DECODE

    def ids(self, begin: int, end: int) -> list[int]:
        """Tokens begin..end of prompt and answer."""
        prompt = self.prompt_ids
        return [
            *prompt[begin:end],
            *self.task.ids[max(0, begin - len(prompt)) : max(0, end - len(prompt))],
        ]

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt_ids) + len(self.task.ids)

    @property
    def most_tokens(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.prompt_ids) + self.task.max_tokens


class ScheduledChunk:
    """The tokens begin..end of a sequence that one step computes."""

    __slots__ = ("begin", "end", "sequence", "wanted")

    def __init__(self, sequence: Sequence, begin: int, end: int) -> None:
        """`wanted`: those of its tokens whose logits its task takes, counted from `begin`."""
        self.sequence = sequence
        self.begin = begin
        self.end = end
        start = begin - sequence.virtual_tokens
        wanted = sequence.task.wanted(start, start + end - begin)
        self.wanted = range(wanted.start - start, wanted.stop - start)

    @property
    def takes_hidden_states(self) -> bool:
        """See `Task`."""
        return self.sequence.task.takes_hidden_states

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.end - self.begin
