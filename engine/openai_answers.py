"""Parts of an answer as OpenAI's chat completions name them: ends, ids of calls, probabilities."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from engine.request import FinishReason, TokenLogprob

MIN_LOGPROB = -9999.0  # JSON has no infinity; OpenAI's value for "very unlikely"
REPLACEMENT = "\ufffd"
# OpenAI has no name for an answer that its reader stopped
FINISH_REASONS: Mapping[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "cancelled": "stop",
}


def finish_reason_of(reason: FinishReason, *, calls: bool) -> str:
    """Return OpenAI's `finish_reason` of an answer that has made calls, or none."""
    named = FINISH_REASONS[reason]
    return "tool_calls" if calls and named == "stop" else named


def call_id_of(answer_id: str | None, index: int) -> str:
    """Return the id of a call, by which its result will name it.

    That of a stored answer's call is always the same, so that an answer can be followed by its id.
    """
    return f"call_{answer_id or uuid.uuid4().hex}_{index}"


def logprobs_document(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Return what OpenAI's `logprobs.content` has."""
    return [
        {
            **_token(token.text, token.logprob),
            "top_logprobs": [_token(text, logprob) for _, text, logprob in token.top],
        }
        for token in tokens
    ]


def _token(text: str, logprob: float) -> dict[str, Any]:
    """Return one token; its bytes are unknown if it is only a part of a character."""
    whole = REPLACEMENT not in text
    return {
        "token": text,
        "logprob": max(logprob, MIN_LOGPROB),
        "bytes": list(text.encode()) if whole else None,
    }
