"""The OpenAI-compatible part of the API: `/v1/models` and `/v1/chat/completions`.

`model` is `base`, `live` or a release id (or its beginning). Beyond OpenAI's fields, `ignore_eos`,
`stream_options.include_usage`, `top_k`, `min_p`, `repetition_penalty` and
`chat_template_kwargs.enable_thinking` work as in vLLM; `timeout_seconds` and the type `grammar` of
`response_format` are our own. If the last message is the assistant's, it is continued, as in
Anthropic's API and with vLLM's `continue_final_message`. Calls of tools are parts of the message
beside `content`, and their arguments are valid under the tools' schemas. A completion has the id of
its first stored answer, and each choice has its `answer_id`, so that a vote can name it. A model's
thought is `reasoning_content`, beside `content`, as in DeepSeek's API and llama.cpp; in a request's
messages it is ignored, since no model is shown its earlier thoughts. `completion_request` defines
requests, `completion_documents` responses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.answering import BASE, LIVE, RunningAnswer
from app.service import Service
from app.web.body import StrictJsonRoute
from app.web.completion_documents import completion_document, completion_events
from app.web.completion_request import CompletionRequest
from app.web.identity import user_of
from app.web.relay import Piece, Relay
from engine.serving.prompt import require_plausible_count
from engine.storage import find_digest, folder_of

T = TypeVar("T")
SUBMIT_THREADS = 8  # each tokenizes a prompt and queues it; waiting happens elsewhere
CLIENT_CLOSED = 499  # nginx's status; no client reads it
# A proxy that caches or buffers events would deliver a stream as one block
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def openai_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute)
    submitters = ThreadPoolExecutor(SUBMIT_THREADS, thread_name_prefix="burnish-submit")

    @router.get("/models")
    def models() -> dict[str, Any]:
        known = _models(service)
        return {"object": "list", "data": [_model(name, at) for name, at in known.items()]}

    @router.get("/models/{model}")
    def model(model: str) -> dict[str, Any]:
        known = _models(service)
        if model in known:
            return _model(model, known[model])
        bundles = service.workspace.home.bundles
        digest = find_digest(bundles, model)
        return _model(digest, known.get(digest, folder_of(bundles, digest).stat().st_mtime))

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
            return _EventStream(relay, completion_events(body, opening, pieces))
        return JSONResponse(completion_document(body, opening))

    return router


def _submit(service: Service, user_id: str, body: CompletionRequest) -> list[RunningAnswer]:
    """Queue the choices; errors are raised here, before a status is sent."""
    require_plausible_count(len(body.messages), service.engine.context_tokens)
    messages, tool_choice = body.chat()
    return service.completions.complete(
        user_id,
        messages,
        body.samplings(service.chat.sampling(), tool_choice),
        adapter=service.adapter_named(body.model),
        user=body.user,
        timeout_seconds=body.timeout_seconds,
        thinking=body.thinking,
    )


def _models(service: Service) -> dict[str, float]:
    """Return the valid values of `model`, with the time each was made."""
    base = service.workspace.base.folder.stat().st_mtime
    releases = service.workspace.registry.list()
    return {BASE: base, LIVE: base} | {r.bundle: r.created_at for r in releases}


def _model(name: str, created: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created), "owned_by": "burnish"}


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises `ClientDisconnect` if the client disconnects before."""
    tasks = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _opening(body: CompletionRequest, pieces: AsyncIterator[Piece]) -> list[Piece]:
    """Return all pieces or, for a stream, those until every choice has started and one has text.

    Raises the first error if nothing but errors came, so that it gets its own status.
    """
    opening: list[Piece] = []
    begun: set[int] = set()
    speaks = False
    async for piece in pieces:
        opening.append(piece)
        begun.add(piece.index)
        speaks = speaks or piece.has_text or piece.update.finished is not None
        if body.stream and speaks and len(begun) == body.n:
            return opening
    errors = [piece.update.error for piece in opening if piece.update.error]
    if len(errors) == body.n:
        raise errors[0]
    return opening


class _EventStream(StreamingResponse):
    """A stream of server-sent events that ends its answers when it ends."""

    def __init__(self, relay: Relay, events: AsyncIterator[str]) -> None:
        super().__init__(events, headers=STREAM_HEADERS, media_type="text/event-stream")
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._relay.close()
