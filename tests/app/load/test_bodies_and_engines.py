"""Huge bodies, and an engine that dies, through a real server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import psutil
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.web.body import MAX_BODY_BYTES, BodyLimit
from tests.app.load.conftest import CHAT, ENDLESS, HELLO, assert_ends_properly, crowd, until
from tests.support.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.integration


class TestHugeBodies:
    @pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
    def test_100_megabytes_are_refused_in_flat_memory(self, url: str, declared: bool) -> None:
        chunk, chunks = b" " * 2**20, 100

        async def body() -> AsyncIterator[bytes]:
            for _ in range(chunks):
                yield chunk

        async def scene() -> httpx.Response:
            length = {"content-length": str(len(chunk) * chunks)} if declared else {}
            headers = {"content-type": "application/json", **length}
            async with crowd(url) as client:
                return await client.post(CHAT, content=body(), headers=headers)

        before = psutil.Process().memory_info().rss
        response = asyncio.run(scene())
        assert response.status_code == 413
        assert str(MAX_BODY_BYTES) in response.json()["error"]["message"]
        assert psutil.Process().memory_info().rss - before < 40 * 2**20
        assert httpx.post(f"{url}{CHAT}", json=HELLO).status_code == 200

    def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(self, url: str) -> None:
        text = json.dumps(HELLO)
        headers = {"content-type": "application/json"}
        for extra, status in ((0, 200), (1, 413)):
            padded = text + " " * (MAX_BODY_BYTES - len(text) + extra)
            response = httpx.post(f"{url}{CHAT}", content=padded, headers=headers)
            assert response.status_code == status

    @pytest.mark.parametrize(("length", "status"), [("9" * 5_000, 413), ("many", 200), ("-1", 200)])
    def test_a_strange_length_does_no_harm(self, length: str, status: int) -> None:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            await Response()(scope, receive, send)

        async def scene() -> httpx.Response:
            transport = httpx.ASGITransport(app=BodyLimit(served))
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.post("/", headers={"content-length": length})

        assert asyncio.run(scene()).status_code == status


class TestDeadEngines:
    @pytest.mark.parametrize("fault", ["die", "hang"])
    def test_not_ready_within_5_seconds_and_no_stream_waits_for_ever(
        self, url: str, engine: ScriptedEngine, fault: str
    ) -> None:
        async def broken(client: httpx.AsyncClient) -> list[str]:
            lines: list[str] = []
            async with client.stream("POST", CHAT, json={**ENDLESS, "stream": True}) as response:
                async for line in response.aiter_lines():
                    lines += [line] if line else []
                    if len(lines) == 3:  # it speaks
                        getattr(engine, fault)()
            return lines

        async def scene() -> None:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(crowd(url))
                assert (await client.get("/readyz")).status_code == 200
                stream = asyncio.create_task(broken(client))
                whole = asyncio.create_task(client.post(CHAT, json=ENDLESS))
                await until(lambda: not engine.alive)
                since = time.monotonic()
                assert (await client.get("/readyz")).status_code == 503
                chunks = assert_ends_properly(await stream)
                assert chunks[-1]["error"]["type"] == "EngineFailure"
                assert (await whole).status_code == 503
                assert (await client.post(CHAT, json=HELLO)).status_code == 503
                assert time.monotonic() - since < 5

        asyncio.run(scene())
