"""A running server over the tiny model, and people who use it."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import typer.main
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from starlette.types import ASGIApp

from app.answering.conversation import Chat
from app.claims import listen
from app.serve import Server, make_app
from app.service import Service
from app.settings import Settings, load_settings
from app.web.headers import SecurityHeaders
from app.web.server import build_app
from app.workspace import Workspace
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.serving.engine import ServingEngine
from feedback_store.storage.database import Database
from tests.app.chat_page import ChatPage
from tests.app.command_line import Cli
from tests.conftest import share_kernels
from tests.feedback_store.conftest import sqlite_url
from tests.feedback_store.people import People
from tests.support.databases import migrated_sqlite
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import wait_until

BROWSER = {"accept": "text/html"}
# Without the windows that nobody sees, a page opens in a third of the time
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium: apt-get install chromium-headless-shell"
    ),
]


class Shared(NamedTuple):
    """A running service and its server's address."""

    service: Service
    url: str


class Played(NamedTuple):
    """A running service whose engine says what a test wants, and its server's address."""

    service: Service
    engine: ScriptedEngine
    url: str


def settings_of(folder: Path, base: BaseModel) -> Settings:
    """A fresh home on a model, with an empty database."""
    home = Home(folder / "home")
    home.root.mkdir(mode=0o700)
    migrated_sqlite(home.root)
    return load_settings(
        home=home.root,
        model_cache=folder / "models",
        model=str(base.folder),
        max_new_tokens=64,
        port=0,
        compare_rate=0,  # no test meets an offer by chance
        tune_nice=0,  # a job has its share of a processor that other tests keep busy
    )


@contextmanager
def served(settings: Settings) -> Iterator[tuple[Service, str]]:
    """A running service and the address of a real server on this machine."""
    service = Service(Workspace(settings))
    service.start()
    with listening(service) as url:
        yield service, url
    service.close()


def api_alone(service: Service) -> ASGIApp:
    """The application with an empty page in place of gradio's: those take long to build."""

    def add_empty_page(app: FastAPI) -> None:
        @app.get("/", response_class=HTMLResponse, include_in_schema=False)
        def empty_page() -> str:
            return ""

    return SecurityHeaders(build_app(service, add_empty_page))


@contextmanager
def listening(service: Service, app: ASGIApp | None = None) -> Iterator[str]:
    """The address of the product's own server over a running service."""
    at_once = service.workspace.settings.model_copy(update={"shutdown_grace_seconds": 0})
    server = Server(app or make_app(service), service.chat.running, at_once)
    (listener,) = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.handle_exit(signal.SIGTERM, None)
    thread.join(timeout=30)


class ShortPauses:
    """asyncio with shorter pauses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 5)


@pytest.fixture(scope="session", autouse=True)
def quick_stops() -> Iterator[None]:
    """uvicorn looks ten times a second whether it shall stop, and then pauses for another tenth, in
    which nothing happens: to stop the servers of all tests took half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uvicorn.server.asyncio", ShortPauses())
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_built_once() -> Iterator[None]:
    """typer builds all commands anew at each call, which takes most of the time of a short one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def settings(tmp_path: Path, tiny_base: BaseModel) -> Settings:
    """A fresh home on the tiny model."""
    return settings_of(tmp_path, tiny_base)


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Settings:
    """A fresh home on the tiny model, for the tests of a file."""
    return settings_of(tmp_path_factory.mktemp("module"), tiny_base)


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    """A running service without a web server."""
    service = Service(Workspace(settings))
    service.start()
    yield service
    service.close()


@pytest.fixture
def chat(service: Service) -> Chat:
    """The chat of the running service."""
    return service.chat


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    """The address of a server of the test's own."""
    with listening(service) as url:
        yield url


@pytest.fixture
def api_url(service: Service) -> Iterator[str]:
    """The address of a server of the test's own without the pages."""
    with listening(service, api_alone(service)) as url:
        yield url


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Iterator[Shared]:
    """One server for the tests of a file that leave nothing behind."""
    with served(settings_of(tmp_path_factory.mktemp("shared"), tiny_base)) as (service, url):
        yield Shared(service, url)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Iterator[Played]:
    """One server without a model, for the tests of a file."""
    engine = ScriptedEngine(token_seconds=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.start.start_engine", lambda *_, **__: engine)
        with served(settings_of(tmp_path_factory.mktemp("played"), tiny_base)) as (service, url):
            yield Played(service, engine, url)


@pytest.fixture(scope="module")
def api_stage(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Iterator[Played]:
    """The same without the pages; an answer is there as soon as it is asked for."""
    engine = ScriptedEngine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.start.start_engine", lambda *_, **__: engine)
        service = Service(Workspace(settings_of(tmp_path_factory.mktemp("api"), tiny_base)))
        service.start()
        with listening(service, api_alone(service)) as url:
            yield Played(service, engine, url)
        service.close()


@pytest.fixture
def played(stage: Played) -> Iterator[Played]:
    """The same, as it was at the start when the test is done."""
    yield stage
    stage.engine.go_on()
    stage.engine.says, stage.engine.token_seconds = "", 0.01
    stage.service.chat.running.stop_all()


@pytest.fixture
def long_answers(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let answers go on until somebody stops them."""
    long = replace(played.service.chat._sampling, max_new_tokens=4_000)
    monkeypatch.setattr(played.service.chat, "_sampling", long)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def newcomer(chromium: Browser) -> Iterator[Callable[..., ChatPage]]:
    """A new person's tab of the chat page at an address, each time it is called."""
    contexts: list[BrowserContext] = []

    def make(url: str, **context: Any) -> ChatPage:
        contexts.append(chromium.new_context(**{"locale": "en-US", **context}))
        return ChatPage(contexts[-1].new_page(), url).open()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def person(url: str) -> Iterator[Callable[[], httpx.Client]]:
    """A new browser-like client with a cookie of its own, each time it is called."""
    clients: list[httpx.Client] = []

    def make() -> httpx.Client:
        client = httpx.Client(base_url=url, timeout=60)
        assert client.get("/", headers=BROWSER).status_code == 200
        assert client.cookies.get("burnish_session")
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def serving_engine(service: Service) -> ServingEngine[Any]:
    """The service's engine with its renderer and its loop, which are no part of an `Engine`."""
    assert isinstance(service.engine, ServingEngine)
    return service.engine


@pytest.fixture
def model_says(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the model write a given text, token by token, instead of what it would."""

    def say(text: str) -> None:
        draw_ids(monkeypatch, serving_engine(service).renderer.completion(text))

    return say


def draw_ids(monkeypatch: pytest.MonkeyPatch, ids: Sequence[int]) -> None:
    """Make every answer's sampler draw these tokens."""

    class Script:
        is_greedy = is_complete = False

        def __init__(self, _params: object, _grammar: object) -> None:
            self._rest = list(ids)

        def __call__(self, _logits: object, _context: object) -> int:
            return self._rest.pop(0)

    monkeypatch.setattr("engine.serving.generation_task.Sampler", Script)


@pytest.fixture
def cli(
    tmp_path: Path,
    tiny_base: BaseModel,
    kernel_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    share_kernels(tmp_path / "models", kernel_cache)
    monkeypatch.setenv("BURNISH_MODEL", str(tiny_base.folder))
    monkeypatch.setenv("BURNISH_MODEL_CACHE", str(tmp_path / "models"))
    umask = os.umask(0o022)
    yield Cli(tmp_path / "home", monkeypatch, capfd)
    os.umask(umask)  # commands set it for their process, which is this one


# Feedback


@pytest.fixture(scope="module")
def spoken_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which Ann and Bob have spoken, to be copied: speaking takes 0.3 s."""
    home = tmp_path_factory.mktemp("spoken")
    database = Database(sqlite_url(home))
    people = People(database)
    for name in ("ann", "bob"):
        people.speaks(name)
    database.close()
    return Home(home).database


@pytest.fixture
def spoken(cli: Cli, spoken_database: Path) -> Iterator[People]:
    """A home in which Ann and Bob have spoken; each has three pairs."""
    cli.home.mkdir()
    shutil.copy(spoken_database, cli.home)
    database = Database(sqlite_url(cli.home))
    yield People(database)
    database.close()
