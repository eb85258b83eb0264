"""Server-sent events of the chat page, each compressed and sent at once.

Consecutive patches of one answer resemble each other: compressed as one stream they take a third of
the bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.web.streaming.relayed_response import STREAM_HEADERS

GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's format


def event(data: Any, kind: str = "") -> str:
    """Return one event with a JSON value."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n" if kind else f"data: {text}\n\n"


def event_stream(events: AsyncIterator[str], request: Request) -> Response:
    """Return a response that streams events, in gzip's format if the client accepts it."""
    headers = dict(STREAM_HEADERS)
    body: AsyncIterator[bytes] = (text.encode() async for text in events)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        body = _compressed(body)
    return StreamingResponse(body, headers=headers, media_type="text/event-stream")


async def _compressed(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Compress and yield each event at once: a sync flush ends it on a byte (RFC 1951, 3.2.4)."""
    compressor = zlib.compressobj(wbits=GZIP_WINDOW)
    async for piece in body:
        yield compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()
