"""Requests that are sent in part, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.web.streaming.timed_protocol import TimedProtocol


class Quick(TimedProtocol):
    header_seconds = 0.3
    body_seconds = 0.6


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes a body; at /slow, an answer that takes longer than a request may."""
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    if scope["path"] == "/slow":
        response: PlainTextResponse | StreamingResponse = StreamingResponse(_slowly())
    else:
        response = PlainTextResponse(await request.body())
    await response(scope, receive, send)


async def _slowly() -> AsyncIterator[str]:
    import asyncio

    for _ in range(5):
        await asyncio.sleep(0.3)
        yield "still "


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="critical", http=Quick, ws="none", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(timeout=10)


def what_comes_back(port: int, *pieces: bytes, pause: float = 0.1) -> tuple[bytes, float]:
    """What a connection says until it is closed, and after how many seconds."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        said = b""
        try:
            while received := connection.recv(4096):
                said += received
        except ConnectionError:
            pass
    return said, time.monotonic() - begun


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHos", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_headers_that_never_end_are_waited_for_so_long_and_no_longer(
    port: int, sent: bytes
) -> None:
    said, seconds = what_comes_back(port, sent)
    assert said.startswith(b"HTTP/1.1 408")
    assert 0.25 < seconds < 5


def test_a_byte_now_and_then_buys_no_time(port: int) -> None:
    head = [bytes([byte]) for byte in b"GET / HTTP/1.1\r\nHost: somewhere\r\n"]
    begun = time.monotonic()
    with pytest.raises(ConnectionError):
        what_comes_back(port, *head, b"\r\n" * 20, pause=0.1)
    assert time.monotonic() - begun < 3


def test_a_body_that_never_ends_is_waited_for_so_long_and_no_longer(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"
    said, seconds = what_comes_back(port, head)
    assert said.startswith(b"HTTP/1.1 408")
    assert 0.55 < seconds < 5


@pytest.mark.integration
def test_whole_requests_and_long_answers_are_left_alone(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        for text in ("one", "two"):
            assert client.post("/", content=text).text == text
            time.sleep(0.4)  # the connection is kept, and idle for longer than headers may take
        assert client.get("/slow").text == "still " * 5
        assert client.post("/", content="three").text == "three"
