"""Responses of text completions: one document, or server-sent events that add up to it.

The formats are OpenAI's legacy ones. Knows nothing of routes and of how texts are generated.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from app.answering.answering import AnswerUpdate
from app.web.completion_ids import TEXT_COMPLETION_PREFIX
from app.web.error_responses import error_document
from app.web.openai.completion_documents import chain_pieces, ending_of
from app.web.openai.legacy_logprobs import LegacyLogprobs
from app.web.openai.text_completion_request import TextCompletionRequest
from app.web.streaming.event_stream import event
from app.web.streaming.relay import Piece
from engine.errors import BurnishError
from engine.request import TokenLogprob


def text_completion_document(
    body: TextCompletionRequest, pieces: Sequence[Piece]
) -> dict[str, Any]:
    """Return all texts as one document."""
    choices = [_Choice(body, index) for index in range(_count(pieces))]
    for piece in pieces:
        choices[piece.index].add(piece)
    ends = [choice.end for choice in choices]
    return {
        **_head(body, ends[0]),
        "choices": [choice.whole() for choice in choices],
        "usage": _usage(body, ends),
    }


async def text_completion_events(
    body: TextCompletionRequest, opening: Sequence[Piece], rest: AsyncIterator[Piece]
) -> AsyncIterator[str]:
    """Yield each choice's prompt if requested, text and end, then the usage and `[DONE]`."""
    choices = [_Choice(body, index) for index in range(_count(opening))]
    head = _head(body, opening[0].update)
    try:
        async for piece in chain_pieces(opening, rest):
            for part in choices[piece.index].add(piece):
                yield event({**head, "choices": [part]})
            if piece.is_last:
                yield event({**head, **choices[piece.index].last_event()})
    except Exception as error:  # noqa: BLE001 - the stream's edge: its reader waits for an end
        known = error if isinstance(error, BurnishError) else BurnishError("the text was lost")
        for choice in choices:
            if not choice.has_ended:
                choice.end = AnswerUpdate(None, "", "", "failed", error=known)
                yield event({**head, **choice.last_event()})
    if body.stream_options.include_usage:
        usage = _usage(body, [choice.end for choice in choices])
        yield event({**head, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


class _Choice:
    """One text while it grows."""

    def __init__(self, body: TextCompletionRequest, index: int) -> None:
        self._body = body
        self._index = index
        self._logprobs = LegacyLogprobs()
        self._parts: list[dict[str, Any]] = []
        self.end = AnswerUpdate(None, "", "", "streaming")

    @property
    def has_ended(self) -> bool:
        return self.end.status != "streaming"

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        """Take the next piece; returns the parts of the text that it brings."""
        update, parts = piece.update, []
        if update.prompt is not None:
            wanted = self._body.logprobs is not None
            scores = self._logprobs.of_prompt(update.prompt) if wanted else None
            parts.append(self._part(update.prompt.text, scores))
        if (piece.text or update.logprobs) and not self._body.reads_only:
            parts.append(self._part(piece.text, self._scores(update.logprobs, piece.text)))
        if piece.is_last:
            self.end = update
        self._parts += parts
        return parts

    def whole(self) -> dict[str, Any]:
        """Return the whole text with its end."""
        text = "".join(part["text"] for part in self._parts)
        return {**self._part(text, _joined(self._parts)), **ending_of(self.end)}

    def last_event(self) -> dict[str, Any]:
        """Return the event that tells the end, without text."""
        failure = {} if self.end.error is None else error_document(self.end.error)
        return {"choices": [{**self._part("", None), **ending_of(self.end)}], **failure}

    def _part(self, text: str, scores: dict[str, list[Any]] | None) -> dict[str, Any]:
        return {"index": self._index, "text": text, "logprobs": scores, "finish_reason": None}

    def _scores(self, tokens: Sequence[TokenLogprob], text: str) -> dict[str, list[Any]] | None:
        return None if self._body.logprobs is None else self._logprobs.of_text(tokens, text)


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, list[Any]] | None:
    """The log-probabilities of all parts; None where none are wanted."""
    scored = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    if not scored:
        return None
    return {name: [value for each in scored for value in each[name]] for name in scored[0]}


def _count(pieces: Sequence[Piece]) -> int:
    return max(piece.index for piece in pieces) + 1


def _head(body: TextCompletionRequest, first: AnswerUpdate) -> dict[str, Any]:
    return {
        "id": f"{TEXT_COMPLETION_PREFIX}{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": first.adapter or "base",
    }


def _usage(body: TextCompletionRequest, ends: Sequence[AnswerUpdate]) -> dict[str, Any]:
    """Return the token counts of all texts; the choices of one prompt count it once."""
    done = [end.finished for end in ends]
    groups = [done[begin : begin + body.n] for begin in range(0, len(done), body.n)]
    prompt = sum(max((end.prompt_tokens for end in each if end), default=0) for each in groups)
    completion = 0 if body.reads_only else sum(end.completion_tokens for end in done if end)
    cached = sum(
        min((end.cached_prompt_tokens for end in each if end), default=0) for each in groups
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
