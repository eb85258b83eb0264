"""What the pages' own event routes let through: the used routes, each person's own session, and a
bounded number of unfinished questions that keep nobody else waiting."""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from app.service import Service
from tests.app.conftest import BROWSER, Shared

UNUSED = (
    ("POST", "/upload"), ("GET", "/upload_progress?upload_id=x"), ("GET", "/file=/etc/hostname"),
    ("GET", "/proxy=https://example.org/"), ("POST", "/call/ask"), ("POST", "/stream/x"),
    ("POST", "/component_server"), ("POST", "/process_recording"), ("GET", "/info"),
    ("POST", "/vibe-code/"), ("GET", "/runs"), ("GET", "/openapi.json"), ("GET", "/app_id"),
)  # fmt: skip


class Tab:
    """A browser tab of one person, by the requests that gradio's page makes."""

    def __init__(self, client: httpx.AsyncClient, cookie: str, session_hash: str, config: Any):
        self._client = client
        self._cookie = {"cookie": cookie}
        self._session = session_hash
        self._config = config

    @classmethod
    async def open(cls, client: httpx.AsyncClient, session_hash: str, config: Any = None) -> Tab:
        """The tab of a new person, who has a cookie of its own."""
        page = await client.get("/readyz", headers=BROWSER)  # any page gives one
        cookie = page.headers["set-cookie"].partition(";")[0]
        client.cookies.clear()  # the next person has another
        config = config or (await client.get("/config")).json()
        return cls(client, cookie, session_hash, config)

    def function(self, name: str) -> int:
        """The number of the handler of this name."""
        return next(d["id"] for d in self._config["dependencies"] if d["api_name"] == name)

    async def join(self, name: str, data: list[Any]) -> httpx.Response:
        """Call a handler."""
        body = {
            "data": data, "fn_index": self.function(name), "session_hash": self._session,
            "trigger_id": 1, "event_data": None,
        }  # fmt: skip
        join = "/gradio_api/queue/join"
        return await self._client.post(join, json=body, headers=self._cookie)

    async def events(self, until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """What the session's stream says until an event of a kind has come."""
        query = {"session_hash": self._session}
        seen = []
        async with self._client.stream(
            "GET", "/gradio_api/queue/data", params=query, headers=self._cookie
        ) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    seen.append(json.loads(line[5:]))
                    if until(seen[-1]):
                        break
        return seen


def is_done(event: dict[str, Any]) -> bool:
    return event["msg"] in ("process_completed", "close_stream")


@pytest.mark.parametrize("mount", ["", "/console"])
def test_routes_of_gradio_that_no_page_uses_are_refused(shared: Shared, mount: str) -> None:
    with httpx.Client(base_url=shared.url) as client:
        for method, path in UNUSED:
            refused = client.request(method, f"{mount}/gradio_api{path}")
            assert (refused.status_code, path) == (404, path)
        files = {"files": ("x.txt", b"x" * 1000)}
        assert client.post(f"{mount}/gradio_api/upload", files=files).status_code == 404
        assert client.get(f"{mount}/monitoring").status_code == 404


def test_a_body_of_undeclared_length_is_refused_when_it_is_too_long(shared: Shared) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"data": ["'
        for _ in range(80):
            yield b"x" * 65_536
        yield b'"]}'

    answer = httpx.post(f"{shared.url}/gradio_api/queue/join", content=pieces())
    assert answer.status_code == 413
    assert "longer than" in answer.json()["error"]["message"]


def test_who_knows_anothers_session_reads_nothing_of_it(shared: Shared) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        owner, other = await Tab.open(client, "known"), await Tab.open(client, "known")
        assert (await owner.join("ask", ["SECRET-71", "plain", None])).status_code == 200
        assert "SECRET-71" in json.dumps(await owner.events(is_done))
        # The other person asks in "the same" session: it is another one, without that conversation
        await other.join("ask", ["TIDE-44", "plain", None])
        seen = json.dumps(await other.events(is_done))
        assert "TIDE-44" in seen
        assert "SECRET-71" not in seen
        # and cannot listen to what the owner's next question brings
        await owner.join("ask", ["WAVE-19", "plain", None])
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                assert "WAVE-19" not in json.dumps(await other.events(is_done))
        seen = json.dumps(await owner.events(is_done))
        assert "SECRET-71" in seen  # the owner's conversation went on
        assert "WAVE-19" in seen

    run(scene, shared.url)


@pytest.mark.parametrize("people", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_unfinished_questions_keep_no_vote_waiting(
    people: int, service: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait in the engine's queue, not in gradio's 40 threads; the next one is refused."""
    service.engine._max_queue = people
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    ).json()["id"]
    release = _hold_steps(service, monkeypatch)

    async def scene(client: httpx.AsyncClient) -> None:
        first = await Tab.open(client, "tab")
        tabs = [first, *[await Tab.open(client, f"{n}", first._config) for n in range(people - 1)]]
        for tab in tabs:
            assert (await tab.join("ask", ["Wait.", "plain", None])).status_code == 200
        while service.engine.active_streams < people:
            await asyncio.sleep(0.05)
        seconds = []
        for _ in range(20):
            begun = time.perf_counter()
            voted = await client.post(f"/api/answers/{answer}/vote", json={"vote": 1})
            assert voted.status_code == 200
            seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        await first.join("set_consent", [False])
        while service.workspace.curation.consents(_person(first._cookie["cookie"])):
            await asyncio.sleep(0.01)
        seconds.append(time.perf_counter() - begun)
        assert statistics.median(seconds) < 0.5
        assert max(seconds) < 5  # on a busy machine; a page that waits for an answer waits for ever
        late = await Tab.open(client, "late", first._config)
        await late.join("ask", ["One more?", "plain", None])
        said = json.dumps(await late.events(is_done))
        assert "answers are waiting; try again later" in said
        release()

    run(scene, url)


def test_one_person_has_a_few_unfinished_questions_at_most(
    service: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = _hold_steps(service, monkeypatch)
    most = service.workspace.settings.max_unfinished

    async def scene(client: httpx.AsyncClient) -> None:
        tab = await Tab.open(client, "tab")
        for _ in range(most):
            await tab.join("ask", ["Wait.", "plain", None])
        while service.engine.active_streams < most:
            await asyncio.sleep(0.05)
        await tab.join("ask", ["One more?", "plain", None])
        said = json.dumps(await tab.events(is_done))
        assert f"{most} of your questions are still being answered" in said
        release()

    run(scene, url)


def run(scene: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]], url: str) -> None:
    async def with_client() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            await scene(client)

    asyncio.run(with_client())


def _person(cookie: str) -> str:
    """The person in a session cookie, which is signed and not secret."""
    payload = cookie.partition("=")[2].partition(".")[0]
    return str(json.loads(base64.b64decode(payload))["user"])


def _hold_steps(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the engine take questions and answer none until the returned function is called."""
    held = True
    plan = service.engine._scheduler.plan

    def nothing_while_held() -> Any:
        if held:
            time.sleep(0.01)
            return []
        return plan()

    def release() -> None:
        nonlocal held
        held = False

    monkeypatch.setattr(service.engine._scheduler, "plan", nothing_while_held)
    return release
