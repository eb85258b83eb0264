"""Crowds, people who leave, late answers, huge bodies and a dead engine, through a real server.

The engine is a fake of 8 rows and a queue of 32 that makes a token in 10 ms; all else is real.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psutil
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.answering import LIVE, Answering
from app.comparing import Comparisons
from app.completions import Completions
from app.conversation import Chat
from app.service import Service, Workspace
from app.settings import Settings
from app.web.body import MAX_BODY_BYTES, BodyLimit
from app.web.completion_ids import answer_named
from app.web.server import build_app
from engine.adapters.slots import AdapterSlots
from engine.prompts.modes import make_template
from engine.request import SamplingParams
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
ENDLESS = {**HELLO, "max_tokens": 100_000}
PATIENCE_SECONDS = 60  # what takes longer has hung; slow machines are no failure


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine(token_seconds=0.01)
    yield engine
    engine.close()


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


@pytest.fixture
def url(engine: ScriptedEngine, workspace: Workspace) -> Iterator[str]:
    """A real server of the API alone."""
    slots = AdapterSlots(engine, workspace.base, workspace.home.bundles)
    answering = Answering(engine, slots, workspace.store)
    chat = Chat(
        engine,
        answering,
        workspace.store,
        examples=tuple,
        system_prompt="",
        sampling=SamplingParams(),
        max_message_chars=20_000,
        feedback_examples=workspace.feedback_examples,
        library=workspace.documents,
    )
    service = SimpleNamespace(
        workspace=workspace,
        engine=engine,
        slots=slots,
        chat=chat,
        completions=Completions(answering, workspace.store, max_message_chars=20_000),
        comparisons=Comparisons(chat, lambda: None, rate=0),
        adapter_named=lambda _name: LIVE,
    )
    app = build_app(cast(Service, service), lambda _app: None)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            log_level="error",
            timeout_graceful_shutdown=5,
            timeout_keep_alive=PATIENCE_SECONDS,  # else it is cut as a client takes it up again
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition without stopping the test's own clients."""
    await asyncio.to_thread(wait_until, condition)


def crowd(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, limits=limits)


def data_of(line: str) -> dict[str, Any]:
    return dict(json.loads(line.removeprefix("data: ")))


def assert_ends_properly(events: list[str], choices: int = 1) -> list[dict[str, Any]]:
    """One terminal event for each choice, then `[DONE]`, then nothing; returns the chunks."""
    assert events.index("data: [DONE]") == len(events) - 1
    chunks = [data_of(event) for event in events[:-1]]
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == list(range(choices))
    return chunks


def events_of(text: str) -> list[str]:
    return text.strip().split("\n\n")


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


class TestVotes:
    """A flood of votes (docs/faults.md, row 16)."""

    CLIENTS = 40

    @pytest.fixture
    def answers(self, workspace: Workspace) -> list[str]:
        """An answer for each client to vote on."""
        store, template = workspace.store, make_template("plain", ())
        found = []
        for number in range(self.CLIENTS):
            turn = store.add_turn(
                user_id="api", question="Q", template=template, conversation_id=f"c{number}"
            )
            answer_id = store.begin_answer(
                turn.id, base_digest="base", adapter_digest=None, sampling={}, seed=0
            )
            store.finish_answer(answer_id, status="done", text="A", complete=True)
            found.append(answer_id)
        return found

    @pytest.mark.parametrize("each", [6, pytest.param(50, marks=pytest.mark.slow)])
    def test_each_vote_that_is_taken_over_http_is_stored_once(
        self, url: str, workspace: Workspace, answers: list[str], each: int
    ) -> None:
        taken: list[str] = []

        async def vote(client: httpx.AsyncClient, number: int) -> None:
            for turn in range(each):
                key = f"{number}-{turn}"
                body = {"vote": 1 if turn % 2 else -1, "idempotency_key": key}
                path = f"/api/answers/{answers[number]}/vote"
                for _ in range(2):  # the second one is a replay, as after a lost reply
                    response = await client.post(path, json=body)
                    assert response.status_code in (200, 429), response.text
                if response.status_code == 200:
                    taken.append(key)

        async def scene() -> None:
            async with crowd(url) as client:
                await asyncio.gather(*(vote(client, n) for n in range(self.CLIENTS)))

        asyncio.run(scene())
        assert len(taken) == self.CLIENTS * each == workspace.store.event_count()
        counts = workspace.store.counts()
        assert (counts["votes"], counts["votes_up"]) == (self.CLIENTS, self.CLIENTS)

    @pytest.mark.slow
    def test_of_10_000_votes_over_http_few_take_long(
        self, url: str, workspace: Workspace, answers: list[str]
    ) -> None:
        command = [sys.executable, "-m", "tests.app.voters", url, str(10_000 // self.CLIENTS)]
        done = subprocess.run([*command, *answers], capture_output=True, text=True, check=True)
        seconds = json.loads(done.stdout)
        assert len(seconds) == 10_000 == workspace.store.event_count()
        assert seconds[9_900] < 0.25

    @pytest.mark.parametrize("votes", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
    def test_forty_writers_never_meet_a_locked_database_and_lose_nothing(
        self, workspace: Workspace, answers: list[str], votes: int
    ) -> None:
        def vote(number: int) -> list[float]:
            seconds = []
            for turn in range(votes // self.CLIENTS):
                begun = time.perf_counter()
                workspace.store.vote(answers[number], "api", 1 if turn % 2 else -1)
                seconds.append(time.perf_counter() - begun)
            return seconds

        with ThreadPoolExecutor(self.CLIENTS) as writers:
            taken = sorted(
                second for each in writers.map(vote, range(self.CLIENTS)) for second in each
            )
        assert len(taken) == votes == workspace.store.event_count()
        assert workspace.store.counts()["votes"] == self.CLIENTS
        if votes == 10_000:
            assert taken[int(0.99 * votes)] < 0.25


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
