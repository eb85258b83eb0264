"""Messages in Anthropic's format: one document, or server-sent events that add up to it.

A message has the id of its stored answer, so that a vote can name it. Knows nothing of routes and
of how answers are generated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic_core import from_json

from app.answering.answering import AnswerUpdate
from app.web.anthropic.request import MessageRequest
from app.web.completion_ids import UNSAVED
from app.web.error_responses import anthropic_error_document, status_of
from app.web.openai.completion_documents import chain_pieces
from app.web.streaming.answer_parts import AnswerPart, PartChange, PartReader, whole_parts
from app.web.streaming.event_stream import event
from app.web.streaming.relay import Piece
from engine.errors import BurnishError
from engine.openai_answers import call_id_of

DELTAS = {
    "thought": ("thinking_delta", "thinking"),
    "words": ("text_delta", "text"),
    "call": ("input_json_delta", "partial_json"),
}


def message_document(body: MessageRequest, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return the whole answer as one document."""
    end = pieces[-1].update
    return {
        **_head(body, end),
        "content": [_block(part, end, is_whole=True) for part in whole_parts(pieces)],
        **_ending(body, end),
        "usage": _usage(end),
    }


async def message_events(
    body: MessageRequest, opening: Sequence[Piece], rest: AsyncIterator[Piece]
) -> AsyncIterator[str]:
    """Yield the start, each block's start, deltas and stop, and the end with its usage."""
    first = opening[0].update
    start = {**_head(body, first), "content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message={**start, "usage": _usage(first)})
    yield _event("ping")
    reader = PartReader()
    try:
        async for piece in chain_pieces(opening, rest):
            for change in reader.read(piece):
                yield _block_event(change, first)
            if piece.is_last:
                if piece.update.error is not None:
                    raise piece.update.error
                ending = _ending(body, piece.update)
                yield _event("message_delta", delta=ending, usage=_usage(piece.update))
                yield _event("message_stop")
    except Exception as error:  # noqa: BLE001 - the stream's edge: its reader waits for an end
        known = error if isinstance(error, BurnishError) else BurnishError("the answer was lost")
        yield event(anthropic_error_document(status_of(known), str(known)), "error")


def _event(kind: str, **more: Any) -> str:
    return event({"type": kind, **more}, kind)


def _head(body: MessageRequest, update: AnswerUpdate) -> dict[str, Any]:
    return {
        "id": update.answer_id or UNSAVED,
        "type": "message",
        "role": "assistant",
        "model": body.model,
    }


def _block(part: AnswerPart, update: AnswerUpdate, *, is_whole: bool) -> dict[str, Any]:
    """Return a block of the content: whole, or as it begins.

    Arguments that were cut off are those that their text has so far, as Anthropic's clients read
    them of a stream.
    """
    text = part.text if is_whole else ""
    match part.kind:
        case "thought":
            return {"type": "thinking", "thinking": text, "signature": ""}
        case "words":
            return {"type": "text", "text": text}
    return {
        "type": "tool_use",
        "id": call_id_of(update.answer_id, part.call_index),
        "name": part.name,
        "input": from_json(text, allow_partial=True) if text else {},
    }


def _block_event(change: PartChange, update: AnswerUpdate) -> str:
    part = change.part
    match change.kind:
        case "begins":
            block = _block(part, update, is_whole=False)
            return _event("content_block_start", index=part.index, content_block=block)
        case "grows":
            kind, name = DELTAS[part.kind]
            return _event(
                "content_block_delta", index=part.index, delta={"type": kind, name: change.new}
            )
    return _event("content_block_stop", index=part.index)


def _ending(body: MessageRequest, end: AnswerUpdate) -> dict[str, Any]:
    """Return why the message has ended, as its fields tell."""
    done = end.finished
    assert done is not None, "an answer that failed is an error"
    reason, sequence = "end_turn", None
    if done.reason == "length":
        is_asked = done.completion_tokens >= body.max_tokens
        reason = "max_tokens" if is_asked else "model_context_window_exceeded"
    elif end.calls:
        reason = "tool_use"
    elif done.stop_string:
        reason, sequence = "stop_sequence", done.stop_string
    return {"stop_reason": reason, "stop_sequence": sequence}


def _usage(update: AnswerUpdate) -> dict[str, int]:
    """Return the token counts. What came from the prefix cache is known at the end."""
    done = update.finished
    cached = done.cached_prompt_tokens if done else 0
    return {
        "input_tokens": (done.prompt_tokens if done else update.prompt_tokens) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": done.completion_tokens if done else 0,
    }
