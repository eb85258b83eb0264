"""Log-probabilities of tokens in the format of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.request import TokenLogprob

MIN_LOGPROB = -9999.0  # JSON has no infinity; OpenAI's value for "very unlikely"
REPLACEMENT = "\ufffd"


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
