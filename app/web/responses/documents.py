"""Responses in OpenAI's format: one document, or typed events that add up to it.

A response has the id of its stored answer, so that a vote, a retrieval and a response that follows
can name it. Knows nothing of routes and of how answers are generated.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from app.answering.answering import AnswerUpdate
from app.web.openai.completion_documents import chain_pieces
from app.web.responses.request import ResponseRequest
from app.web.streaming.answer_parts import AnswerPart, PartChange, PartReader, whole_parts
from app.web.streaming.event_stream import event
from app.web.streaming.relay import Piece
from engine.errors import BurnishError
from engine.openai_answers import call_id_of, logprobs_document
from engine.request import TokenLogprob
from feedback_store.storage.turns import new_id

TypedEvent = tuple[str, dict[str, Any]]  # its type and its other fields
# Of each kind of part: its item's type and the beginning of its id; its text's events
ITEM_TYPES = {
    "thought": ("reasoning", "rs"),
    "words": ("message", "msg"),
    "call": ("function_call", "fc"),
}
TEXT_EVENTS = {
    "thought": "response.reasoning_text",
    "words": "response.output_text",
    "call": "response.function_call_arguments",
}


def response_document(body: ResponseRequest, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return the whole response as one document."""
    end = pieces[-1].update
    return _Writer(body, end.answer_id or new_id(), time.time()).document(whole_parts(pieces), end)


def stored_document(
    body: ResponseRequest, piece: Piece, created_at: float, finished_at: float | None
) -> dict[str, Any]:
    """Return a stored answer, whole in one piece, as the response that `body` asked for."""
    update = piece.update
    assert update.answer_id is not None, "it is stored"
    document = _Writer(body, update.answer_id, created_at).document(whole_parts([piece]), update)
    return {**document, "completed_at": finished_at}


async def response_events(
    body: ResponseRequest, opening: Sequence[Piece], rest: AsyncIterator[Piece]
) -> AsyncIterator[str]:
    """Yield the start, the events of each item of the output, and the whole response."""
    first = opening[0].update
    writer = _Writer(body, first.answer_id or new_id(), time.time())
    reader, numbers = PartReader(), count()

    def typed(kind: str, **more: Any) -> str:
        return event({"type": kind, "sequence_number": next(numbers), **more}, kind)

    begun = writer.document([], first)
    yield typed("response.created", response=begun)
    yield typed("response.in_progress", response=begun)
    end = first
    try:
        async for piece in chain_pieces(opening, rest):
            for change in reader.read(piece):
                for kind, more in writer.changes(change, piece.update):
                    yield typed(kind, **more)
            end = piece.update
    except Exception as error:  # noqa: BLE001 - the stream's edge: its reader waits for an end
        known = error if isinstance(error, BurnishError) else BurnishError("the answer was lost")
        end = AnswerUpdate(first.answer_id, "", "", "failed", error=known)
    whole = writer.document(reader.parts, end)
    yield typed(f"response.{whole['status']}", response=whole)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes one response under one id."""

    body: ResponseRequest
    response_id: str
    created_at: float

    def document(self, parts: Sequence[AnswerPart], update: AnswerUpdate) -> dict[str, Any]:
        """Return the response as it is at an update."""
        status = status_of_response(update)
        is_cut = status == "incomplete"
        items = [
            self._item(part, _status_of_item(update, ends_answer=part is parts[-1]))
            for part in parts
        ]
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": int(self.created_at),
            "completed_at": time.time() if update.finished else None,
            "status": status,
            "error": _error(update),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": items,
            "usage": _usage(update),
            **_as_asked(self.body),
        }

    def changes(self, change: PartChange, update: AnswerUpdate) -> Iterator[TypedEvent]:
        """Yield the events that tell of a change, each with its type."""
        part = change.part
        at = {"output_index": part.index}
        inside = {**at, "item_id": self._item_id(part)}
        if part.kind != "call":
            inside["content_index"] = 0
        match change.kind:
            case "begins":
                yield "response.output_item.added", {**at, "item": self._begun_item(part)}
                if part.kind != "call":
                    yield "response.content_part.added", {**inside, "part": _content(part)}
            case "grows":
                scores = _scores(part, change.logprobs)
                yield f"{TEXT_EVENTS[part.kind]}.delta", {**inside, "delta": change.new, **scores}
            case "ends":
                text = {"arguments" if part.kind == "call" else "text": part.text}
                scores = _scores(part, part.logprobs)
                yield f"{TEXT_EVENTS[part.kind]}.done", {**inside, **text, **scores}
                if part.kind != "call":
                    yield "response.content_part.done", {**inside, "part": _content(part)}
                status = _status_of_item(update, ends_answer=change.ends_answer)
                yield "response.output_item.done", {**at, "item": self._item(part, status)}

    def _begun_item(self, part: AnswerPart) -> dict[str, Any]:
        item = self._item(part, "in_progress")
        return item if part.kind == "call" else {**item, "content": []}

    def _item(self, part: AnswerPart, status: str) -> dict[str, Any]:
        """Return an item of the output."""
        kind, _ = ITEM_TYPES[part.kind]
        item: dict[str, Any] = {"id": self._item_id(part), "type": kind, "status": status}
        match part.kind:
            case "thought":
                return {**item, "summary": [], "content": [_content(part)]}
            case "words":
                return {**item, "role": "assistant", "content": [_content(part)]}
        call_id = call_id_of(self.response_id, part.call_index)
        return {**item, "call_id": call_id, "name": part.name, "arguments": part.text}

    def _item_id(self, part: AnswerPart) -> str:
        return f"{ITEM_TYPES[part.kind][1]}_{self.response_id}_{part.index}"


def status_of_response(update: AnswerUpdate) -> str:
    """Return OpenAI's name of the state that an answer is in."""
    if update.status == "streaming":
        return "in_progress"
    if update.finished is None:
        return "failed"
    return "incomplete" if update.finished.reason == "length" else "completed"


def _status_of_item(update: AnswerUpdate, *, ends_answer: bool) -> str:
    """Return the state of an item: only the last one can grow, or have been cut off."""
    status = status_of_response(update) if ends_answer else "completed"
    return "incomplete" if status == "failed" else status


def _content(part: AnswerPart) -> dict[str, Any]:
    if part.kind == "thought":
        return {"type": "reasoning_text", "text": part.text}
    scores = _scores(part, part.logprobs)
    return {"type": "output_text", "text": part.text, "annotations": [], **scores}


def _scores(part: AnswerPart, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the field of log-probabilities, which words alone have."""
    return {"logprobs": logprobs_document(logprobs)} if part.kind == "words" else {}


def _error(update: AnswerUpdate) -> dict[str, str] | None:
    if update.error is None:
        return None
    return {"code": "server_error", "message": str(update.error)}


def _usage(end: AnswerUpdate) -> dict[str, Any] | None:
    """Return the token counts; how many were a thought's is not counted."""
    done = end.finished
    if done is None:
        return None
    return {
        "input_tokens": done.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": done.cached_prompt_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": done.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": None if end.thought else 0},
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }


def _as_asked(body: ResponseRequest) -> dict[str, Any]:
    """Return the fields that repeat the request's."""
    return {
        "instructions": body.instructions or None,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata,
        "model": body.model,
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning.effort, "summary": None},
        "store": body.store,
        "temperature": body.temperature,
        "text": {"format": body.text.format or {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools,
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": body.truncation,
        "user": body.user or None,
    }
