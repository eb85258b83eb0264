"""What the pages' own event routes let through: the used routes, each person's own session, and a
bounded number of unfinished questions that keep nobody else waiting. The sessions are the
console's: the chat page has no events of gradio's."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx
import pytest

from app.service import Service
from tests.app.conftest import BROWSER, Shared, serving_engine

UNUSED = (
    ("POST", "/upload"),
    ("GET", "/upload_progress?upload_id=x"),
    ("GET", "/file=/etc/hostname"),
    ("GET", "/proxy=https://example.org/"),
    ("POST", "/call/ask"),
    ("POST", "/stream/x"),
    ("POST", "/component_server"),
    ("POST", "/process_recording"),
    ("GET", "/info"),
    ("POST", "/vibe-code/"),
    ("GET", "/runs"),
    ("GET", "/openapi.json"),
    ("GET", "/app_id"),
)


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
    """The console's own sessions: the same name from another person is another session."""

    async def scene(client: httpx.AsyncClient) -> None:
        config = (await client.get("/console/config")).json()
        number = next(d["id"] for d in config["dependencies"] if d["targets"][0][1] == "load")
        event = {"data": [], "fn_index": number, "session_hash": "known"}
        asked: dict[str, str] = {}
        for cookie in [await cookie_of_a_new_person(client) for _ in range(2)]:
            joined = await client.post(
                "/console/gradio_api/queue/join", json=event, headers={"cookie": cookie}
            )
            asked[cookie] = joined.json()["event_id"]
        for cookie, own in reversed(asked.items()):
            assert await hears(client, cookie) == {own}

    run(scene, shared.url)


async def hears(client: httpx.AsyncClient, cookie: str) -> set[str]:
    """The events that a person is told of in the session "known", until it is closed."""
    told: set[str] = set()
    async with client.stream(
        "GET",
        "/console/gradio_api/queue/data",
        params={"session_hash": "known"},
        headers={"cookie": cookie},
    ) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                message = json.loads(line[5:])
                told |= {message["event_id"]} if message.get("event_id") else set()
                if message["msg"] == "close_stream":
                    break
    return told


async def cookie_of_a_new_person(client: httpx.AsyncClient) -> str:
    page = await client.get("/readyz", headers=BROWSER)  # any page gives one
    client.cookies.clear()  # the next person has another
    return page.headers["set-cookie"].partition(";")[0]


async def ask(client: httpx.AsyncClient, cookie: str, question: str = "Wait.") -> httpx.Response:
    """Ask as a page does, and leave once the answer has begun or is refused."""
    asked = client.build_request(
        "POST", "/chat/questions", json={"question": question}, headers={"cookie": cookie}
    )
    response = await client.send(asked, stream=True)
    if response.status_code == 200:
        await anext(response.aiter_lines())
    else:
        await response.aread()
    await response.aclose()
    return response


@pytest.mark.integration
@pytest.mark.parametrize("people", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_unfinished_questions_keep_no_vote_waiting(
    people: int, service: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait in the engine's queue, not in the threads of other requests; the next one is
    refused."""
    serving_engine(service).loop.max_queue = people
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    ).json()["id"]
    release = _hold_steps(service, monkeypatch)

    async def scene(client: httpx.AsyncClient) -> None:
        cookies = [await cookie_of_a_new_person(client) for _ in range(people)]
        for cookie in cookies:
            assert (await ask(client, cookie)).status_code == 200
        assert service.engine.active_streams == people
        seconds = []
        for _ in range(20):
            begun = time.perf_counter()
            voted = await client.post(f"/api/answers/{answer}/vote", json={"vote": 1})
            assert voted.status_code == 200
            seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        refused = await client.put(
            "/api/consent", json={"allowed": False}, headers={"cookie": cookies[0]}
        )
        assert refused.status_code == 200
        seconds.append(time.perf_counter() - begun)
        assert statistics.median(seconds) < 0.5
        assert max(seconds) < 5  # on a busy machine; a page that waits for an answer waits for ever
        late = await ask(client, await cookie_of_a_new_person(client))
        assert late.status_code == 429
        assert "answers are waiting; try again later" in late.text
        release()

    run(scene, url)


def test_one_person_has_a_few_unfinished_questions_at_most(
    service: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = _hold_steps(service, monkeypatch)
    most = service.workspace.settings.max_unfinished

    async def scene(client: httpx.AsyncClient) -> None:
        cookie = await cookie_of_a_new_person(client)
        for _ in range(most):
            assert (await ask(client, cookie)).status_code == 200
        refused = await ask(client, cookie, "One more?")
        assert refused.status_code == 429
        assert f"{most} of your questions are still being answered" in refused.text
        release()

    run(scene, url)


def run(scene: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]], url: str) -> None:
    async def with_client() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            await scene(client)

    asyncio.run(with_client())


def _hold_steps(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the engine take questions and answer none until the returned function is called."""
    held = True
    scheduler = serving_engine(service).loop.scheduler
    schedule = scheduler.schedule

    def nothing_while_held() -> Any:
        if held:
            time.sleep(0.01)
            return []
        return schedule()

    def release() -> None:
        nonlocal held
        held = False

    monkeypatch.setattr(scheduler, "schedule", nothing_while_held)
    return release
