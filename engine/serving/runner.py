"""The interface between the engine's loop and what computes tensors."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor

from engine.serving.scheduler import CacheManager
from engine.serving.sequence import Adapter, ScheduledChunk
from engine.time_slices import YieldToEngine

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The output of a step for the wanted tokens of its chunks, in the chunks' order, on the CPU.

    `logits` (n, vocabulary) are those of the tasks that take logits, `hidden` (m, hidden size)
    those of the tasks that take hidden states.
    """

    logits: Tensor
    hidden: Tensor


class EngineThread(Protocol):
    """The engine's thread, as those see it who load adapters from another one."""

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Queue a call between two steps; raises `EngineFailure` where the thread does not run."""

    def background(self) -> AbstractContextManager[YieldToEngine]:
        """See `Engine.background`."""


class ModelRunner(Protocol):
    """A model in memory: one runner is for our decoder, one for transformers and peft.

    All but `open_adapter` is called on the engine's thread alone.
    """

    vocabulary: int  # logits of a token
    whole_prompts: bool  # whether a prompt must be computed in one chunk
    hang_seconds: float  # a step that is slower by far than planned, and than this, hangs

    @property
    def cache_manager(self) -> CacheManager:
        """The keys and values of sequences."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens, that fits beside the loaded adapters."""

    def prefix_tokens(self, prompt_ids: abc.Sequence[int]) -> int:
        """Leading tokens of a prompt that see each other both ways; 0 where attention is causal.

        Raises `InvalidInput` for ids that are no prompt of this model.
        """

    def run(self, chunks: list[ScheduledChunk]) -> StepOutput:
        """Compute chunks."""

    def open_adapter(self, digest: str, folder: Path, thread: EngineThread) -> Adapter:
        """Load a *verified* PEFT adapter; called on the thread of whoever loads it.

        Raises `InvalidBundle` for one that cannot be run, and `Overloaded` where one needs room in
        the cache and there is none.
        """
