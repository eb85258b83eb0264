"""The pages behind a proxy that serves them under a path of its own, in a real Chromium."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, expect
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.service import Service
from app.settings import Settings
from tests.app.conftest import NEEDS_CHROMIUM, listening

pytestmark = NEEDS_CHROMIUM
PREFIX = "/burnish"


class StrippingProxy:
    """Hands what lies under the prefix to the server, without the prefix; 404 for all else."""

    def __init__(self, server: str) -> None:
        self._client = httpx.AsyncClient(base_url=server, timeout=None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await (await self._answer(Request(scope, receive)))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        if path != PREFIX and not path.startswith(f"{PREFIX}/"):
            return PlainTextResponse("no such page at the proxy", 404)
        asked = self._client.build_request(
            request.method,
            f"{path[len(PREFIX) :] or '/'}?{request.url.query}",
            headers=request.headers.raw,
            content=await request.body(),
        )
        answer = await self._client.send(asked, stream=True)

        async def body() -> AsyncIterator[bytes]:
            async for piece in answer.aiter_raw():
                yield piece

        response = StreamingResponse(body(), answer.status_code)
        response.raw_headers = [(k.lower(), v) for k, v in answer.headers.raw]
        return response


@contextmanager
def proxied(server: str) -> Iterator[str]:
    """The address of the proxy's page."""
    proxy = uvicorn.Server(
        uvicorn.Config(StrippingProxy(server), port=0, log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    while not proxy.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{proxy.servers[0].sockets[0].getsockname()[1]}{PREFIX}"
    proxy.should_exit = proxy.force_exit = True
    thread.join(timeout=10)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"path_prefix": PREFIX})


def test_chat_and_console_work_under_the_prefix(service: Service, chromium: Browser) -> None:
    with listening(service) as server, proxied(server) as address:
        missed: list[str] = []
        page = chromium.new_context().new_page()
        page.on("response", lambda r: missed.append(r.url) if r.status >= 400 else None)
        page.goto(f"{address}/")
        page.locator("#question").fill("Hello?")
        page.click("#send")
        expect(page.locator(".turn .bar button").first).to_be_visible(timeout=30_000)
        page.reload()
        expect(page.locator(".turn .bar button").first).to_be_visible(timeout=30_000)
        page.goto(f"{address}/console")
        status = page.locator("#status textarea")
        expect(status).to_have_value(re.compile("Live: base"), timeout=30_000)
        assert page.url == f"{address}/console/"
        page.goto(f"{address}/docs")
        expect(page.get_by_text("/v1/chat/completions")).to_be_visible(timeout=30_000)
        assert missed == []
        assert page.context.cookies()[0]["path"] == PREFIX
        page.close()
