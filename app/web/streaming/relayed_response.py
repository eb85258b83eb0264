"""The response that relays running answers: one document, or a stream of events.

Answers whose client has gone are ended. Knows nothing of the documents' format.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.web.streaming.relay import Piece, Relay, Submit

T = TypeVar("T")
CLIENT_CLOSED = 499  # nginx's status; no client reads it
# A proxy that caches or buffers events would deliver a stream as one block
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

WriteDocument = Callable[[Sequence[Piece]], dict[str, Any]]
WriteEvents = Callable[[Sequence[Piece], AsyncIterator[Piece]], AsyncIterator[str]]


async def relayed_response(
    request: Request,
    relay: Relay,
    executor: Executor,
    submit: Submit,
    *,
    document: WriteDocument,
    events: WriteEvents | None,
) -> Response:
    """Submit answers in a thread of `executor`, and return their document or their `events`.

    Raises the errors of `submit`, and the first answer's error where every answer fails before it
    has text.
    """
    try:
        await while_connected(request, relay.start(executor, submit))
        pieces = relay.pieces()
        opening = await while_connected(
            request, _opening(pieces, relay.count, is_stream=events is not None)
        )
    except ClientDisconnect:
        relay.close()
        return Response(status_code=CLIENT_CLOSED)
    except BaseException:
        relay.close()
        raise
    if events is not None:
        return _EventStream(relay, events(opening, pieces))
    return JSONResponse(document(opening))


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
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


async def _opening(pieces: AsyncIterator[Piece], choices: int, *, is_stream: bool) -> list[Piece]:
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
        if is_stream and speaks and len(begun) == choices:
            return opening
    errors = [piece.update.error for piece in opening if piece.update.error]
    if len(errors) == choices:
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
