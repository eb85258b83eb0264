"""Embeddings of the HTTP API: texts to vectors, under one adapter, without anything being stored.

Knows the engine and its adapters; knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.answering.answering import LIVE, Answering
from app.answering.completions import asker_of
from engine.errors import ShuttingDown
from engine.request import EmbeddingRequest, Engine, RawPrompt, TextEmbedding

TEXTS_AT_ONCE = 32  # the engine's queue holds no more of one request, and a stop waits no longer


class Embeddings:
    """Embeds texts with one engine; a shutdown waits for it as for an answer."""

    def __init__(self, engine: Engine, answering: Answering) -> None:
        self._engine = engine
        self._answering = answering

    def embed(
        self,
        user_id: str,
        texts: Sequence[RawPrompt],
        *,
        adapter: str | None = LIVE,
        user: str = "",
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> list[TextEmbedding]:
        """Return the embedding of each text; fewer once the caller has abandoned them.

        Raises `InvalidInput`, `PromptTooLong`, `UnknownId` or `ShuttingDown`.
        """
        found: list[TextEmbedding] = []
        with self._answering.pin(adapter) as pinned, self._answering.running.admit() as token:
            requests = [
                EmbeddingRequest(text, pinned, asker_of(user_id, user), f"input {number}")
                for number, text in enumerate(texts)
            ]
            for begin in range(0, len(requests), TEXTS_AT_ONCE):
                if token.cancelled:
                    raise ShuttingDown("the server is shutting down; ask again in a moment")
                if is_abandoned():
                    break
                found += self._engine.embed(requests[begin : begin + TEXTS_AT_ONCE])
        return found
