"""Crowds of people who chat, and people who leave, through a real server."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import httpx
import psutil
import pytest

from app.web.completion_ids import answer_named
from app.workspace import Workspace
from tests.app.load.conftest import (
    CHAT,
    ENDLESS,
    HELLO,
    assert_ends_properly,
    crowd,
    data_of,
    events_of,
    until,
)
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


class TestCrowds:
    def test_of_200_chats_at_once_8_run_32_wait_and_the_rest_are_asked_to_come_back(
        self, url: str, engine: ScriptedEngine
    ) -> None:
        engine.stand_still()  # so that nobody's end lets another in

        async def scene() -> list[httpx.Response]:
            async with crowd(url) as client:
                chats = [
                    asyncio.create_task(client.post(CHAT, json={**HELLO, "stream": bool(i % 2)}))
                    for i in range(200)
                ]
                await until(lambda: sum(chat.done() for chat in chats) == 160)
                assert (engine.running, engine.waiting) == (8, 32)
                ready = await client.get("/readyz")
                assert ready.status_code == 200
                engine.go_on()
                return await asyncio.gather(*chats)

        responses = asyncio.run(scene())
        refusals = {r.text for r in responses if r.status_code not in (200, 429)}
        assert Counter(r.status_code for r in responses) == {200: 40, 429: 160}, refusals
        for response in responses:
            if response.status_code == 429:
                assert response.headers["Retry-After"] == "2"  # the engine says 1.5; up
                assert response.json()["error"]["type"] == "Overloaded"
            elif response.headers["content-type"].startswith("text/event-stream"):
                assert_ends_properly(events_of(response.text))
            else:
                assert response.json()["usage"]["completion_tokens"] == 4
        wait_until(lambda: engine.active_streams == 0)

    def test_choices_are_queued_together_or_not_at_all(
        self, url: str, engine: ScriptedEngine
    ) -> None:
        engine.stand_still()

        async def scene() -> None:
            async with crowd(url) as client:
                first = [
                    asyncio.create_task(client.post(CHAT, json={**HELLO, "n": 16}))
                    for _ in range(2)
                ]
                await until(lambda: engine.active_streams == 32)
                refused = await client.post(CHAT, json={**HELLO, "n": 16})
                assert refused.status_code == 429
                assert engine.active_streams == 32
                engine.go_on()
                for response in await asyncio.gather(*first):
                    assert len(response.json()["choices"]) == 16

        asyncio.run(scene())

    def test_who_asks_for_whom_reaches_the_engine(self, url: str, engine: ScriptedEngine) -> None:
        for more in ({}, {"user": "ann", "timeout_seconds": 30, "min_p": 0.1}):
            assert httpx.post(f"{url}{CHAT}", json={**HELLO, **more}).status_code == 200
        plain, ann = engine.requests
        assert (plain.user, plain.timeout_seconds) == ("api", None)
        assert (ann.user, ann.timeout_seconds, ann.sampling.min_p) == ("api/ann", 30, 0.1)

    def test_usage_tells_what_came_from_the_prefix_cache(self, url: str) -> None:
        usage = httpx.post(f"{url}{CHAT}", json={**HELLO, "n": 3}).json()["usage"]
        assert usage == {
            "prompt_tokens": 2,
            "completion_tokens": 12,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 1},
        }


class TestLeaving:
    def test_50_who_leave_mid_stream_leave_nothing_behind(
        self, url: str, engine: ScriptedEngine, workspace: Workspace
    ) -> None:
        async def leave(client: httpx.AsyncClient, choices: int) -> None:
            body = {**ENDLESS, "stream": True, "n": choices}
            async with client.stream("POST", CHAT, json=body) as response:
                async for line in response.aiter_lines():
                    if line and data_of(line)["choices"][0]["delta"].get("content"):
                        return

        async def wave(people: int) -> None:
            async with crowd(url) as client:
                await asyncio.gather(*(leave(client, 1 + i % 2) for i in range(people)))
            await until(lambda: engine.active_streams == 0)

        def threads() -> Counter[str]:
            """All but the few that take requests in, which stay."""
            names = [t.name for t in threading.enumerate()]
            return Counter(name for name in names if not name.startswith("burnish-submit"))

        baseline = threads()
        asyncio.run(wave(5))
        files = psutil.Process().num_fds()
        for _ in range(9):
            asyncio.run(wave(5))
        wait_until(lambda: threads() == baseline)
        pooled_connections = 15 * 3  # SQLite has three files for each
        wait_until(lambda: psutil.Process().num_fds() <= files + pooled_connections)
        counts = workspace.store.counts()
        assert counts["turns"] == 50
        assert workspace.store.abort_unfinished() == 0, "an answer was left streaming"

    @pytest.mark.parametrize("stream", [True, False])
    def test_who_leaves_while_waiting_frees_the_place(
        self, url: str, engine: ScriptedEngine, stream: bool
    ) -> None:
        async def scene() -> None:
            async with crowd(url) as client:
                engine.stand_still()
                body = {**ENDLESS, "stream": stream}
                chats = [asyncio.create_task(client.post(CHAT, json=body)) for _ in range(20)]
                await until(lambda: engine.active_streams == 20)
                for chat in chats:
                    chat.cancel()
                await asyncio.gather(*chats, return_exceptions=True)
                await until(lambda: engine.active_streams == 0)  # without a token made
                engine.go_on()
                assert (await client.post(CHAT, json=HELLO)).status_code == 200

        asyncio.run(scene())

    def test_who_leaves_an_answer_that_is_not_streamed_ends_it(
        self, url: str, engine: ScriptedEngine
    ) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}{CHAT}", json=ENDLESS, timeout=0.5)
        wait_until(lambda: len(engine.requests) == 1 and engine.active_streams == 0)


class TestDeadlines:
    def test_a_late_answer_is_504_before_its_first_token(
        self, url: str, engine: ScriptedEngine
    ) -> None:
        engine.stand_still()
        for stream in (True, False):
            body = {**HELLO, "timeout_seconds": 0.05, "stream": stream}
            response = httpx.post(f"{url}{CHAT}", json=body)
            assert response.status_code == 504
            assert response.json()["error"]["type"] == "DeadlineExceeded"

    def test_a_late_answer_is_an_error_event_after_its_first_token(
        self, url: str, workspace: Workspace
    ) -> None:
        body = {**ENDLESS, "timeout_seconds": 1, "stream": True, "n": 2}
        response = httpx.post(f"{url}{CHAT}", json=body)
        assert response.status_code == 200
        chunks = assert_ends_properly(events_of(response.text), choices=2)
        late = [chunk for chunk in chunks if "error" in chunk]
        assert [chunk["error"]["type"] for chunk in late] == ["DeadlineExceeded"] * 2
        assert {chunk["choices"][0]["finish_reason"] for chunk in late} == {"error"}
        shown = "".join(
            c["choices"][0]["delta"].get("content", "")
            for c in chunks
            if c["choices"][0]["index"] == 0
        )
        stored = workspace.store.answer(answer_named(chunks[0]["id"]), "api")
        assert (stored.status, stored.text) == ("failed", shown)

    def test_a_late_answer_that_is_not_streamed_is_504_and_its_text_is_stored(
        self, url: str, workspace: Workspace
    ) -> None:
        response = httpx.post(f"{url}{CHAT}", json={**ENDLESS, "timeout_seconds": 1})
        assert response.status_code == 504
        assert workspace.store.counts()["answers"] == 1
