"""The OpenAI-compatible part of the API: `/v1/models` and `/v1/chat/completions`.

`model` is `base`, `live` or a release id (or its beginning). `ignore_eos` and
`stream_options.include_usage` mean what they mean in llama.cpp and vLLM; `top_k`, `min_p` and
`repetition_penalty` are understood too, and `timeout_seconds` is ours. The id of a completion is
that of its first stored answer and each choice has its `answer_id`, so a vote can name it. What a
model thought first is `reasoning_content`, beside `content`, as DeepSeek and llama.cpp have it; in
a request's messages it is ignored: no model is shown its earlier thoughts.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.conversation import LIVE, AnswerUpdate, QueuedAnswer
from app.service import Service
from app.web.body import StrictJsonRoute
from app.web.identity import user_of
from app.web.refusals import error_document
from app.web.relay import Piece, Relay
from engine.errors import BurnishError, InvalidInput
from engine.messages import messages_from_dicts
from engine.request import MAX_LOGPROBS, SamplingParams, TokenLogprob
from engine.storage import find_digest

T = TypeVar("T")
FINISH = {"stop": "stop", "length": "length", "cancelled": "stop"}
MAX_CHOICES = 16
MAX_STOPS = 16
SUBMIT_THREADS = 8  # they tokenize a prompt and queue it; waiting is done elsewhere
LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI says this for "very unlikely"
REPLACEMENT = "\ufffd"
UNSAVED = "unsaved"
CLIENT_CLOSED = 499  # nginx's status for it; nobody is there to read it
StopString = Annotated[str, Field(max_length=1000)]


class _Lenient(BaseModel):
    """Unknown fields are ignored and null means the default, as OpenAI's clients expect; a number
    in quotation marks is no number."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: object) -> object:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data


class ChatMessage(_Lenient):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: str


class StreamOptions(_Lenient):
    """What a stream carries beside text."""

    include_usage: bool = False


class CompletionRequest(_Lenient):
    """The request body."""

    model: str = LIVE
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0
    user: Annotated[str, Field(max_length=256)] = ""
    timeout_seconds: float | None = None

    def samplings(self, default_max_new_tokens: int) -> list[SamplingParams]:
        """The engine's parameters of each choice; raises `InvalidInput` on values out of range."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput("top_logprobs needs logprobs to be true")
        limits = (self.max_completion_tokens, self.max_tokens)
        first = SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            max_new_tokens=next((n for n in limits if n is not None), default_max_new_tokens),
            seed=secrets.randbits(31) if self.seed is None else self.seed,
            stop=tuple([self.stop] if isinstance(self.stop, str) else self.stop or []),
            ignore_eos=self.ignore_eos,
            logprobs=self.top_logprobs if self.logprobs else None,
        )
        return [replace(first, seed=first.seed + index) for index in range(self.n)]


def openai_router(service: Service) -> APIRouter:
    """The routes over one running service."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute)
    submitters = ThreadPoolExecutor(SUBMIT_THREADS, thread_name_prefix="burnish-submit")

    @router.get("/models")
    def models() -> dict[str, Any]:
        names = ["base", LIVE, *(r.bundle for r in service.workspace.registry.list())]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "owned_by": "burnish"} for name in names],
        }

    @router.post("/chat/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        relay = Relay(lambda: service.engine.alive)
        submit = partial(_submit, service, user_of(request.session), body)
        try:
            await _while_connected(request, relay.start(submitters, submit))
            pieces = relay.pieces()
            opening = await _while_connected(request, _opening(body, pieces))
        except ClientDisconnect:
            relay.close()
            return Response(status_code=CLIENT_CLOSED)
        except BaseException:
            relay.close()
            raise
        if body.stream:
            return _EventStream(relay, _events(body, opening, pieces))
        return JSONResponse(_completion(body, opening))

    return router


def _submit(service: Service, user_id: str, body: CompletionRequest) -> list[QueuedAnswer]:
    """Queue the choices; what is refused is refused here, before a status is sent."""
    return service.chat.complete(
        user_id,
        messages_from_dicts(m.model_dump() for m in body.messages),
        body.samplings(service.workspace.settings.max_new_tokens),
        adapter=_adapter(service, body.model),
        user=body.user,
        timeout_seconds=body.timeout_seconds,
    )


def _adapter(service: Service, model: str) -> str | None:
    if model == "base":
        return None
    return LIVE if model == LIVE else find_digest(service.workspace.bundles, model)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises `ClientDisconnect` when the client goes away before."""
    tasks = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _opening(body: CompletionRequest, pieces: AsyncIterator[Piece]) -> list[Piece]:
    """All pieces, or for a stream those until there is something to show and every choice has
    begun. Raises the error when nothing came but errors, so that it gets its own status."""
    opening: list[Piece] = []
    begun: set[int] = set()
    speaks = False
    async for piece in pieces:
        opening.append(piece)
        begun.add(piece.index)
        speaks = speaks or bool(piece.thought or piece.text) or piece.update.finished is not None
        if body.stream and speaks and len(begun) == body.n:
            return opening
    errors = [piece.update.error for piece in opening if piece.update.error]
    if len(errors) == body.n:
        raise errors[0]
    return opening


def _completion(body: CompletionRequest, pieces: Sequence[Piece]) -> dict[str, Any]:
    """The whole answer as one document."""
    by_index = {piece.index: piece.update for piece in pieces if piece.is_last}
    ends = [by_index[index] for index in range(body.n)]
    choices = [
        {
            "index": index,
            "answer_id": end.answer_id or UNSAVED,
            "message": {"role": "assistant", "content": end.text, **_reasoning(end.thought)},
            "logprobs": _logprobs(body, end.finished.logprobs if end.finished else ()),
            **_ending(end),
        }
        for index, end in enumerate(ends)
    ]
    return {**_head(body, ends[0], "chat.completion"), "choices": choices, "usage": _usage(ends)}


class _EventStream(StreamingResponse):
    """Server-sent events; however they end, so do the answers behind them."""

    def __init__(self, relay: Relay, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._relay.close()


async def _events(
    body: CompletionRequest, opening: Sequence[Piece], rest: AsyncIterator[Piece]
) -> AsyncIterator[str]:
    """Each choice's role, its text as it comes and one end; the usage where asked; `[DONE]`."""
    first = next(piece.update for piece in opening if piece.index == 0)
    head = _head(body, first, "chat.completion.chunk")
    ends: dict[int, AnswerUpdate] = {}

    def event(index: int, choice: dict[str, Any], **more: Any) -> str:
        whole = {"index": index, "delta": {}, "logprobs": None, "finish_reason": None, **choice}
        return _data({**head, "choices": [whole], **more})

    def end(index: int, update: AnswerUpdate) -> str:
        ends[index] = update
        more = {} if update.error is None else error_document(update.error)
        return event(index, {"answer_id": update.answer_id or UNSAVED, **_ending(update)}, **more)

    for index in range(body.n):
        yield event(index, {"delta": {"role": "assistant", "content": ""}})
    try:
        async for piece in _chain(opening, rest):
            new = piece.update.logprobs
            if piece.thought or piece.text or new:
                delta = {"content": piece.text, **_reasoning(piece.thought)}
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


async def _chain(opening: Sequence[Piece], rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    for piece in opening:
        yield piece
    async for piece in rest:
        yield piece


def _data(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def _head(body: CompletionRequest, first: AnswerUpdate, kind: str) -> dict[str, Any]:
    return {
        "id": first.answer_id or UNSAVED,
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": first.adapter or "base",
    }


def _reasoning(thought: str) -> dict[str, str]:
    return {"reasoning_content": thought} if thought else {}


def _ending(update: AnswerUpdate) -> dict[str, Any]:
    if update.finished is None:
        return {"finish_reason": "error", "error": str(update.error)}
    return {"finish_reason": FINISH[update.finished.reason]}


def _logprobs(
    body: CompletionRequest, tokens: Sequence[TokenLogprob]
) -> dict[str, list[dict[str, Any]]] | None:
    if not body.logprobs:
        return None
    content = [
        {
            **_token(token.text, token.logprob),
            "top_logprobs": [_token(text, logprob) for _, text, logprob in token.top],
        }
        for token in tokens
    ]
    return {"content": content}


def _token(text: str, logprob: float) -> dict[str, Any]:
    """A token alone; its bytes are not known where it is only a part of a character."""
    whole = REPLACEMENT not in text
    return {
        "token": text,
        "logprob": max(logprob, LEAST_LOGPROB),
        "bytes": list(text.encode()) if whole else None,
    }


def _usage(ends: Sequence[AnswerUpdate]) -> dict[str, Any]:
    """Tokens of all choices; the prompt, which they share, counts once."""
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
