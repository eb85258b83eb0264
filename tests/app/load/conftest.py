"""A real server of the API alone over a fake engine: 8 rows and a queue of 32, a token in 10 ms."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import uvicorn

from app.answering.answering import LIVE, Answering
from app.answering.comparing import Comparisons
from app.answering.completions import Completions
from app.answering.conversation import Chat
from app.learning.canaries import canary_router
from app.metrics import Metrics
from app.service import Service
from app.settings import Settings
from app.web.server import build_app
from app.workspace import Workspace
from engine.adapters.slots import AdapterSlots
from engine.request import SamplingParams
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import wait_until

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
    metrics = Metrics()
    answering = Answering(engine, canary_router(slots, workspace), workspace.store, metrics)
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
        toolbox=workspace.toolbox,
    )
    service = SimpleNamespace(
        workspace=workspace,
        engine=engine,
        slots=slots,
        metrics=metrics,
        chat=chat,
        completions=Completions(answering, workspace.store, max_message_chars=20_000),
        comparisons=Comparisons(chat, lambda _user, _answer: None, rate=0),
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
