"""The OpenAI-compatible part of the API: `/v1/models` and `/v1/chat/completions`.

`model` is `base`, `live` or a release id (or its beginning). `ignore_eos` and
`stream_options.include_usage` mean what they mean in llama.cpp and vLLM. `top_k`,
`repetition_penalty` are understood too. The id of a completion is that of the stored answer, so a
vote can name it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.conversation import LIVE, AnswerUpdate
from app.service import Service
from app.web.identity import user_of
from engine.messages import messages_from_dicts
from engine.request import SamplingParams
from engine.storage import find_digest

FINISH = {"stop": "stop", "length": "length", "cancelled": "stop"}


class ChatMessage(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str


class StreamOptions(BaseModel):
    """What a stream carries beside text."""

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """The request body; fields this server does not know are ignored, as OpenAI clients expect."""

    model: str = LIVE
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False

    def sampling(self, default_max_new_tokens: int) -> SamplingParams:
        """The engine's parameters; raises `InvalidInput` on values out of range."""
        limits = (self.max_completion_tokens, self.max_tokens)
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            max_new_tokens=next((n for n in limits if n is not None), default_max_new_tokens),
            seed=secrets.randbits(31) if self.seed is None else self.seed,
            stop=tuple([self.stop] if isinstance(self.stop, str) else self.stop or []),
            ignore_eos=self.ignore_eos,
        )


def openai_router(service: Service) -> APIRouter:
    """The routes over one running service."""
    router = APIRouter(prefix="/v1")
    settings = service.workspace.settings

    @router.get("/models")
    def models() -> dict[str, Any]:
        names = ["base", LIVE, *(r.bundle for r in service.workspace.registry.list())]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "owned_by": "burnish"} for name in names],
        }

    @router.post("/chat/completions", response_model=None)
    def completions(body: CompletionRequest, request: Request) -> Any:
        updates = service.chat.complete(
            user_of(request.session),
            messages_from_dicts(m.model_dump() for m in body.messages),
            body.sampling(settings.max_new_tokens),
            adapter=_adapter(service, body.model),
        )
        first = next(updates)  # what is refused is refused here, before a status is sent
        if body.stream:
            return StreamingResponse(_sse(body, first, updates), media_type="text/event-stream")
        *_, last = _prepend(first, updates)
        choice = {"message": {"role": "assistant", "content": last.text}, **_ending(last)}
        return {**_head(body, last, "chat.completion", choice), "usage": _usage(last)}

    return router


def _adapter(service: Service, model: str) -> str | None:
    if model == "base":
        return None
    return LIVE if model == LIVE else find_digest(service.workspace.bundles, model)


def _sse(
    body: CompletionRequest, first: AnswerUpdate, rest: Iterator[AnswerUpdate]
) -> Iterator[str]:
    """Server-sent events: the role, the text as it comes, the end, the usage where asked."""

    def event(update: AnswerUpdate, choice: dict[str, Any]) -> str:
        return _data(_head(body, update, "chat.completion.chunk", choice))

    yield event(first, {"delta": {"role": "assistant", "content": ""}, "finish_reason": None})
    shown, update = "", first
    try:
        for update in _prepend(first, rest):
            new, shown = update.text[len(shown) :], update.text
            if new:
                yield event(update, {"delta": {"content": new}, "finish_reason": None})
        yield event(update, {"delta": {}, **_ending(update)})
        if body.stream_options.include_usage:
            head = _head(body, update, "chat.completion.chunk", {})
            yield _data({**head, "choices": [], "usage": _usage(update)})
        yield "data: [DONE]\n\n"
    finally:
        rest.close()  # type: ignore[attr-defined]  # a generator: ends the answer when the client goes


def _prepend(first: AnswerUpdate, rest: Iterator[AnswerUpdate]) -> Iterator[AnswerUpdate]:
    yield first
    yield from rest


def _data(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def _head(
    body: CompletionRequest, update: AnswerUpdate, kind: str, choice: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": update.answer_id or "unsaved",
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": update.adapter or "base",
        "choices": [{"index": 0, **choice}],
    }


def _ending(update: AnswerUpdate) -> dict[str, Any]:
    if update.finished is None:
        return {"finish_reason": "error", "error": update.note}
    return {"finish_reason": FINISH[update.finished.reason]}


def _usage(update: AnswerUpdate) -> dict[str, int]:
    done = update.finished
    prompt, completion = (done.prompt_tokens, done.completion_tokens) if done else (0, 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
