"""Events reach a browser one by one, compressed or not."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

import pytest
from fastapi.responses import StreamingResponse
from starlette.requests import Request

from app.web.streaming.event_stream import event, event_stream

SENT = [event({"live": "a"}, "begin"), event(["a", 0, "海"]), event(["a", 1, " & salt"])]


def test_an_event_has_a_kind_and_json_without_spaces() -> None:
    assert event({"live": "a"}, "begin") == 'event: begin\ndata: {"live":"a"}\n\n'
    assert event(["a", 0, "海"]) == 'data: ["a",0,"海"]\n\n'


def response_to(accepted: str) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for each in SENT:
            yield each

    headers = [(b"accept-encoding", accepted.encode())] if accepted else []
    response = event_stream(events(), Request({"type": "http", "headers": headers}))
    assert isinstance(response, StreamingResponse)
    return response


def pieces(response: StreamingResponse) -> list[bytes]:
    async def read() -> list[bytes]:
        sent = []
        async for piece in response.body_iterator:
            assert not isinstance(piece, str)
            sent.append(bytes(piece))
        return sent

    return asyncio.run(read())


@pytest.mark.parametrize("accepted", ["gzip, deflate, br", "br;q=1, gzip"])
def test_each_event_can_be_read_as_soon_as_it_is_sent(accepted: str) -> None:
    response = response_to(accepted)
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["vary"] == "Accept-Encoding"
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    read = [reader.decompress(piece).decode() for piece in pieces(response)]
    assert read == [*SENT, ""] and reader.eof


@pytest.mark.parametrize("accepted", ["", "br"])
def test_a_client_without_gzip_gets_plain_events(accepted: str) -> None:
    response = response_to(accepted)
    assert "content-encoding" not in response.headers
    assert pieces(response) == [each.encode() for each in SENT]
