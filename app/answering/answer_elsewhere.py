"""An answer that another server of the same store generates, followed as far as it is stored.

A page whose connection to that server is lost comes here by way of a load balancer. If that server
has died, its answer is closed after a few seconds (`app.service`), and can be continued here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from app.answering.answering import AnswerUpdate
from app.answering.live_answers import LiveAnswer
from engine.errors import UnknownId
from engine.prompts.reasoning import untagged
from feedback_store.records import StoredAnswer
from feedback_store.storage.store import FeedbackStore

STORE_POLL_SECONDS = 0.5  # its writer stores it about once a second


class AnswerElsewhere:
    """A running answer of this person's on another server; followed as a `LiveAnswer` is.

    Raises `UnknownId` where no other server is writing an answer with that id.
    """

    thought_ended_at: float | None = None  # the other server knows

    def __init__(self, store: FeedbackStore, answer_id: str, user_id: str) -> None:
        self.id = answer_id
        self.user_id = user_id
        self.conversation_id: str | None = store.turn_of(answer_id, user_id).conversation_id
        if answer_id not in store.streaming_elsewhere(self.conversation_id, user_id):
            raise UnknownId(f"no running answer {answer_id[:80]!r}")
        self._store = store
        stored = store.answer(answer_id, user_id)
        self.begun_at = stored.created_at
        self.latest = _as_update(stored)

    def stop(self) -> None:
        """Ask the other server to end the answer; it does so when it next stores it."""
        self._store.want_stop(self.id, self.user_id)

    async def updates(self, pause: float = 0.0) -> AsyncIterator[AnswerUpdate]:
        """Yield what is stored now, and each change of it, the end last."""
        yield self.latest
        while self.latest.status == "streaming":
            await asyncio.sleep(max(pause, STORE_POLL_SECONDS))
            stored = await asyncio.to_thread(self._store.answer, self.id, self.user_id)
            update = _as_update(stored)
            if update != self.latest:
                self.latest = update
                yield update


FollowedAnswer = LiveAnswer | AnswerElsewhere


def _as_update(answer: StoredAnswer) -> AnswerUpdate:
    status = answer.status if answer.status != "aborted" else "stopped"
    return AnswerUpdate(
        answer.id, untagged(answer.thought), answer.text, status, adapter=answer.adapter_digest
    )
