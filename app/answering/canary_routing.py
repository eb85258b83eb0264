"""The choice of the release that answers a conversation while a canary runs.

A share of the conversations that begin during a canary is answered by the candidate from their
first answer to their last: a conversation stays with the release that wrote its first answer.
Everything else is answered by the live release. Knows nothing of verdicts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from deploy.canary.plan import Canary
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, Overloaded
from engine.request import LIVE
from feedback_store.storage.store import FeedbackStore


class KnownCanaries(Protocol):
    """The part of `Canaries` that the router calls."""

    def recent(self) -> Sequence[Canary]:
        """The canaries that run or ended lately, the newest first."""

    def refuse(self, candidate: str, reason: str) -> None:
        """Roll back a candidate that the engine cannot serve."""


class CanaryRouter:
    """Pins the adapter of an answer."""

    def __init__(self, slots: AdapterSlots, store: FeedbackStore, canaries: KnownCanaries) -> None:
        self._slots = slots
        self._store = store
        self._canaries = canaries

    def hold(self, digest: str | None) -> AbstractContextManager[str | None]:
        """Yield a given adapter, which stays loaded while the block runs."""
        return self._slots.hold(digest)

    @contextmanager
    def pin(self, adapter: str | None, conversation_id: str | None = None) -> Iterator[str | None]:
        """Yield the adapter of that name or digest, which stays loaded while the block runs.

        The live one of a conversation may be a canary's candidate. Where the engine cannot serve
        the candidate, that is reported, and the live release answers.
        """
        with ExitStack() as pins:
            if adapter != LIVE:
                yield pins.enter_context(self._slots.hold(adapter))
                return
            candidate = self._candidate_of(conversation_id) if conversation_id else None
            if candidate is not None and self._hold_candidate(candidate, pins):
                yield candidate
            else:
                yield pins.enter_context(self._slots.pin_live())

    def _hold_candidate(self, candidate: str, pins: ExitStack) -> bool:
        """Pin the candidate; False where the engine cannot serve it."""
        try:
            pins.enter_context(self._slots.hold(candidate))
        except Overloaded:
            raise  # the engine is full, whichever adapter is asked for
        except BurnishError as error:
            self._canaries.refuse(candidate, str(error))
            return False
        return True

    def _candidate_of(self, conversation_id: str) -> str | None:
        """Return the candidate, where it answers this conversation."""
        canaries = self._canaries.recent()
        if not canaries:
            return None
        first = self._store.first_answer(conversation_id)
        now = time.time()
        for canary in canaries:
            if first is None:
                if canary.runs and canary.plan.arm_of(conversation_id) == "candidate":
                    return canary.plan.candidate
            elif canary.keeps(first.created_at, first.adapter_digest, conversation_id, now):
                return canary.plan.candidate
        return None
