"""Responses of chat completions: one document, or server-sent events that add up to it.

The formats are OpenAI's. Knows nothing of routes and of how answers are generated.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from app.answering.answering import AnswerUpdate
from app.web.completion_ids import UNSAVED, completion_id
from app.web.error_responses import error_document
from app.web.openai.completion_request import CompletionRequest
from app.web.streaming.relay import Piece
from engine.errors import BurnishError
from engine.openai_answers import call_id_of, finish_reason_of, logprobs_document
from engine.request import TokenLogprob


def completion_document(body: CompletionRequest, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return the whole answer as one document."""
    by_index = {piece.index: piece.update for piece in pieces if piece.is_last}
    ends = [by_index[index] for index in range(body.n)]
    choices = [
        {
            "index": index,
            "answer_id": end.answer_id or UNSAVED,
            "message": _message(end),
            "logprobs": _logprobs(body, end.finished.logprobs if end.finished else ()),
            **ending_of(end),
        }
        for index, end in enumerate(ends)
    ]
    return {**_head(body, ends[0], "chat.completion"), "choices": choices, "usage": _usage(ends)}


async def completion_events(
    body: CompletionRequest, opening: Sequence[Piece], rest: AsyncIterator[Piece]
) -> AsyncIterator[str]:
    """Yield each choice's role, text and end, then the usage if requested and `[DONE]`."""
    first = next(piece.update for piece in opening if piece.index == 0)
    head = _head(body, first, "chat.completion.chunk")
    ends: dict[int, AnswerUpdate] = {}

    def event(index: int, choice: dict[str, Any], **more: Any) -> str:
        whole = {"index": index, "delta": {}, "logprobs": None, "finish_reason": None, **choice}
        return _data({**head, "choices": [whole], **more})

    def end(index: int, update: AnswerUpdate) -> str:
        ends[index] = update
        more = {} if update.error is None else error_document(update.error)
        return event(index, {"answer_id": update.answer_id or UNSAVED, **ending_of(update)}, **more)

    for index in range(body.n):
        yield event(index, {"delta": {"role": "assistant", "content": ""}})
    try:
        async for piece in chain_pieces(opening, rest):
            new = piece.update.logprobs
            if piece.has_text or new:
                delta = {"content": piece.text, **_reasoning(piece.thought), **_call_deltas(piece)}
                yield event(piece.index, {"delta": delta, "logprobs": _logprobs(body, new)})
            if piece.is_last:
                yield end(piece.index, piece.update)
    except Exception as error:  # noqa: BLE001 - the stream's edge: its reader waits for an end
        known = error if isinstance(error, BurnishError) else BurnishError("the answer was lost")
        for index in set(range(body.n)) - set(ends):
            yield end(index, AnswerUpdate(None, "", "", "failed", error=known))
    if body.stream_options.include_usage:
        yield _data({**head, "choices": [], "usage": _usage([ends[i] for i in range(body.n)])})
    yield "data: [DONE]\n\n"


async def chain_pieces(
    opening: Sequence[Piece], rest: AsyncIterator[Piece]
) -> AsyncIterator[Piece]:
    """Yield the pieces that have come, then the rest."""
    for piece in opening:
        yield piece
    async for piece in rest:
        yield piece


def _data(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def _head(body: CompletionRequest, first: AnswerUpdate, kind: str) -> dict[str, Any]:
    return {
        "id": completion_id(first.answer_id),
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": first.adapter or "base",
    }


def _message(end: AnswerUpdate) -> dict[str, Any]:
    """Return the assistant's message; its content is null where it only calls."""
    calls = [
        {"id": call_id_of(end.answer_id, index), "type": "function", "function": asdict(call)}
        for index, call in enumerate(end.calls)
    ]
    return {
        "role": "assistant",
        "content": end.text if end.text or not calls else None,
        **_reasoning(end.thought),
        **({"tool_calls": calls} if calls else {}),
    }


def _call_deltas(piece: Piece) -> dict[str, Any]:
    """Return the deltas of calls: the first of each has its id and name."""
    deltas = []
    for call in piece.calls:
        delta: dict[str, Any] = {"index": call.index, "function": {"arguments": call.arguments}}
        if call.name:
            delta |= {"id": call_id_of(piece.update.answer_id, call.index), "type": "function"}
            delta["function"]["name"] = call.name
        deltas.append(delta)
    return {"tool_calls": deltas} if deltas else {}


def _reasoning(thought: str) -> dict[str, str]:
    return {"reasoning_content": thought} if thought else {}


def ending_of(update: AnswerUpdate) -> dict[str, Any]:
    """Return why a choice has ended, as its fields tell."""
    if update.finished is None:
        return {"finish_reason": "error", "error": str(update.error)}
    return {"finish_reason": finish_reason_of(update.finished.reason, calls=bool(update.calls))}


def _logprobs(
    body: CompletionRequest, tokens: Sequence[TokenLogprob]
) -> dict[str, list[dict[str, Any]]] | None:
    if not body.logprobs:
        return None
    return {"content": logprobs_document(tokens)}


def _usage(ends: Sequence[AnswerUpdate]) -> dict[str, Any]:
    """Return the token counts of all choices; their shared prompt counts once."""
    done = [end.finished for end in ends if end.finished]
    prompt = max((end.prompt_tokens for end in done), default=0)
    completion = sum(end.completion_tokens for end in done)
    cached = min((end.cached_prompt_tokens for end in done), default=0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
