"""Short ways to read a chat completion's request."""

from __future__ import annotations

from typing import Any

from app.web.openai.completion_request import CompletionRequest
from engine.messages import split_prefill
from engine.request import GenerationRequest, SamplingParams

ASKED = {"messages": [{"role": "user", "content": "Hi"}]}
USUAL = SamplingParams(temperature=0.3, top_p=0.6, max_new_tokens=8, seed=11)


def read(**more: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({**ASKED, **more})


def generation(asked: CompletionRequest) -> GenerationRequest:
    """What the engine is asked for."""
    form = asked.form()
    messages, prefill = split_prefill(asked.conversation(form))
    return GenerationRequest(messages, asked.samplings(USUAL, form)[0], prefill=prefill)


def call(name: str, arguments: str) -> dict[str, Any]:
    """A call of a tool in a message."""
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
