"""No route of the application answers a foreign page, or under a foreign name; none is left out.

The routes are read from the application itself, Gradio's and mounted ones included, so that a new
one is tried without being named anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount

from app.serve import make_app
from app.service import Service
from app.settings import Settings
from app.workspace import Workspace
from feedback_store.personal.personal_data import personal_data
from tests.app.conftest import BROWSER, listening
from tests.app.web.test_matrix import flattened, sample_of
from tests.app.web.test_origins import FOREIGN, LINK
from tests.support.scripted_engine import ScriptedEngine

FOREIGN_HOSTS = ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "")
READING = ("GET", "HEAD")


class Running(NamedTuple):
    """A server with its pages, and a browser that has asked something."""

    service: Service
    app: FastAPI
    browser: httpx.Client


@pytest.fixture(scope="module")
def running(module_settings: Settings) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
        service = Service(Workspace(module_settings))
    app = make_app(service)
    with listening(service, app) as url, httpx.Client(base_url=url, timeout=60) as browser:
        browser.get("/", headers=BROWSER)
        browser.post("/chat/questions", json={"question": "Why is the sea salt?"}).read()
        yield Running(service, app._app, browser)
    service.close()


def every_route(routes: Iterable[BaseRoute], under: str = "") -> Iterator[tuple[str, str]]:
    """Every method and path, with those of applications that are mounted."""
    for route in flattened(routes):
        path = under + sample_of(getattr(route, "path", ""))
        if isinstance(route, Mount):
            yield "GET", f"{path}/x"
            yield from every_route(route.routes, path)
        else:
            for method in getattr(route, "methods", None) or ("GET", "POST", "PUT", "DELETE"):
                yield method, path or "/"


def everything(running: Running) -> object:
    """All that is stored of the browser's person, and how much of everybody."""
    workspace = running.service.workspace
    person = running.browser.get("/chat/person/data").json()["person"]
    document = personal_data(workspace.database, person)
    document.pop("made_at")
    return document, workspace.store.counts()


def test_the_walk_meets_routes_of_every_kind(running: Running) -> None:
    found = set(every_route(running.app.routes))
    assert {
        ("POST", "/v1/chat/completions"),
        ("PUT", "/api/consent"),
        ("DELETE", "/chat/conversations/x"),
        ("GET", "/page/main.js"),
        ("POST", "/console/drafts/x/approve"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/console/gradio_api/queue/join"),
        ("POST", "/gradio_api/upload"),  # which is closed to everybody
    } <= found
    assert len(found) > 150


def test_no_route_is_open_to_a_foreign_page_or_under_a_foreign_name(running: Running) -> None:
    browser, before = running.browser, everything(running)
    for method, path in sorted(set(every_route(running.app.routes))):
        for host in FOREIGN_HOSTS:
            with browser.stream(method, path, headers={"host": host}) as refused:
                assert (refused.status_code, method, path, host) == (400, method, path, host)
        for headers in FOREIGN if method in READING else (*FOREIGN, LINK):
            with browser.stream(method, path, headers=headers) as refused:
                assert (refused.status_code, method, path, headers) == (403, method, path, headers)
                assert "access-control-allow-origin" not in refused.headers
                assert "set-cookie" not in refused.headers
    assert everything(running) == before
