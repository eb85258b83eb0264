"""Two people and every route: nothing of the one is read or changed by the other.

Ann has said everything that a person can. Bob, who knows all of her ids, and somebody who is not
signed in try each route of the application with them. A route that `MATRIX` does not have fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import insert
from starlette.routing import BaseRoute, Mount, Route

from app.serve import make_app
from app.service import Service
from app.settings import Settings
from app.ui.gradio_routes import ALLOWED
from app.web.api_paths import PREFIXES
from app.web.auth.access import need_of
from app.workspace import Workspace
from feedback_store.personal.own_prompts import PromptText
from feedback_store.personal.personal_data import personal_data
from feedback_store.storage import tables
from tests.app.conftest import BROWSER, listening
from tests.app.web.matrix_tries import GRADIO, MATRIX, WORDS, Try
from tests.app.web.test_identity import account_of, signed_in
from tests.support.documents import read_in_this_process
from tests.support.scripted_engine import ScriptedEngine

NOWHERE = "http://127.0.0.1:1"
OF_NO_PERSON = ("model", "waiting_id", "draft_id", "evaluation", "alert_id")


@dataclass
class House:
    """A server with accounts, on which Ann has said everything."""

    service: Service
    app: FastAPI
    url: str
    ann: str
    ids: dict[str, str]

    @contextmanager
    def bob(self, name: str) -> Iterator[httpx.Client]:
        """Somebody else, who has just signed in."""
        accounts = self.service.workspace.accounts
        if name not in [account.name for account in accounts.list()]:
            account_of(accounts, name)
        with httpx.Client(base_url=self.url, timeout=60) as client:
            yield signed_in(client, name)

    def everything_of_ann(self) -> dict[str, Any]:
        workspace = self.service.workspace
        document = personal_data(workspace.database, self.ann)
        document.pop("made_at")
        documents = {"documents": workspace.documents.copy_of(self.ann)}
        return {**document, **documents, **workspace.accounts.data(self.ann)}


@pytest.fixture(scope="module")
def house(quick_passwords: None, module_settings: Settings) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
        changes = {
            "accounts": True,
            "tools": ("clock",),
            "alternatives": 0,  # on a busy machine a minute passes, after which they are written
            "oidc_issuer": NOWHERE,
            "oidc_client_id": "burnish",
        }
        service = Service(Workspace(module_settings.model_copy(update=changes)))
    service.start()
    app = make_app(service)
    with read_in_this_process(), listening(service, app) as url:
        ann = account_of(service.workspace.accounts, "ann").id
        yield House(service, app._app, url, ann, _say_everything(service, url, ann))
    service.close()


def _say_everything(service: Service, url: str, ann: str) -> dict[str, str]:
    """Ann's conversation, statements, prompt, key and session; returns their ids by name."""
    workspace = service.workspace
    client = signed_in(httpx.Client(base_url=url, timeout=60, headers=BROWSER), "ann")
    client.post("/chat/questions", json={"question": f"What is {WORDS}?"}).read()
    (listed,) = client.get("/chat/conversations").json()["conversations"]
    data = personal_data(workspace.database, ann)
    (turn,) = data["conversations"][0]["turns"]
    first = turn["answers"][0]["id"]
    client.post(f"/chat/answers/{first}/again", json={}).read()
    (turn,) = personal_data(workspace.database, ann)["conversations"][0]["turns"]
    second = next(a["id"] for a in turn["answers"] if a["id"] != first)
    said = {"text": f"{WORDS} corrected"}
    assert client.post(f"/api/answers/{first}/correction", json=said).status_code == 200
    assert client.post(f"/api/answers/{second}/vote", json={"vote": 1}).status_code == 200
    compared = client.post("/api/comparisons", json={"left": first, "right": second}).json()["id"]
    workspace.feedback_examples.remove(ann, first)
    prompt = workspace.own_prompts.add(ann, PromptText("saved", WORDS, f"{WORDS} text"))
    workspace.toolbox.allow(ann, "clock", True)
    key, _ = workspace.accounts.keys.create(ann, label=WORDS)
    (session,) = workspace.accounts.sessions.of(ann)
    waiting = {"turn_id": turn["id"], "first_answer_id": first, "second_answer_id": second}
    row = {**waiting, "preference": 0.5, "entropy": 1.0, "created_at": 0.0}
    with workspace.database.write() as connection:
        done = connection.execute(insert(tables.waiting_comparisons).values(row))
        number = (done.inserted_primary_key or (0,))[0]
    event = personal_data(workspace.database, ann)["statements"][0]["id"]
    body = {"model": "base", "input": f"{WORDS}?", "max_output_tokens": 16}
    response = client.post("/v1/responses", json=body).json()["id"]
    notes = {"collection": "Notes", "name": "notes.txt"}
    document = client.post("/api/documents", params=notes, content=f"{WORDS} notes").json()["id"]
    return {
        "model": "base",
        "conversation_id": listed["id"],
        "answer_id": first,
        "other_answer_id": second,
        "comparison_id": compared,
        "prompt_id": prompt,
        "key_id": key.id,
        "account_id": ann,
        "session_id": session.id,
        "waiting_id": str(number),
        "event_id": str(event),
        "alert_id": "0" * 16,
        "response_id": response,
        "completion_id": first,
        "document_id": document,
        "draft_id": "0" * 32,
        "evaluation": "sha256:" + "e" * 64,
        "tool_name": "clock",
    }


def flattened(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Routes, and those of the routers among them."""
    for route in routes:
        router = getattr(route, "original_router", None)
        yield from flattened(router.routes) if router else (route,)


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path of the application, but for those in mounts."""
    fallbacks = {f"/{prefix}{end}" for prefix in PREFIXES for end in ("", "/{rest:path}")}
    for route in flattened(app.router.routes):
        if isinstance(route, Mount):
            assert route.path in ("", "/console", "/static-offline-docs")
            continue
        assert isinstance(route, Route), route
        if route.path in fallbacks and not route.methods:
            continue  # it answers what no other route takes: an unknown path or method
        if route.path.startswith("/page/"):
            assert need_of(route.path).scope is None
            continue
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, route.path


def gradio_routes_of(app: FastAPI) -> Iterator[tuple[str, str, str]]:
    """The mount, method and path of every route of gradio's that is let through."""
    for mount in app.router.routes:
        if isinstance(mount, Mount) and hasattr(mount.app, "routes"):
            for route in flattened(mount.app.routes):
                path = getattr(route, "path", "")
                if ALLOWED.fullmatch(sample_of(path)):
                    for method in (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}:
                        yield mount.path, method, path


def sample_of(path: str) -> str:
    """A path of gradio's with values for its parameters."""
    return re.sub(r"\{[^}]*\}", "x", path).replace("/run/x", "/run/predict")


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    """A path or body with Ann's ids for the names in braces."""
    if isinstance(value, dict):
        return {name: filled(each, ids) for name, each in value.items()}
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], value)
    return value


def tried(client: httpx.Client, method: str, path: str, each: Try, house: House) -> httpx.Response:
    sent = {"data": each.form} if each.form is not None else {"json": filled(each.body, house.ids)}
    if each.form is None and each.body is None:
        sent = {}
    return client.request(method, filled(path, house.ids) + each.query, **sent)


def test_every_route_is_in_the_matrix(house: House) -> None:
    routes = list(routes_of(house.app))
    assert len(routes) > 60
    assert set(routes) == set(MATRIX)
    gradio = {(method, path) for _, method, path in gradio_routes_of(house.app)}
    assert gradio
    assert gradio - GRADIO == set()


def test_ann_has_said_it_all(house: House) -> None:
    """The test below would show nothing of an empty table."""
    document = house.everything_of_ann()
    said = json.dumps(document)
    for name, value in house.ids.items():
        if name not in OF_NO_PERSON:
            assert value.removeprefix("resp_") in said, name
    assert said.count(WORDS) >= 5
    assert document["examples_removed"]


@pytest.mark.parametrize(("method", "path"), sorted(MATRIX))
def test_nobody_reads_or_changes_what_is_anns(house: House, method: str, path: str) -> None:
    before = house.everything_of_ann()
    name = f"bob-{sorted(MATRIX).index((method, path))}"
    for each in MATRIX[method, path]:
        with house.bob(name) as bob:
            answer = tried(bob, method, path, each, house)
            assert answer.status_code == each.status, answer.text
            assert WORDS not in answer.text
        with httpx.Client(base_url=house.url, timeout=60) as stranger:
            answer = tried(stranger, method, path, each, house)
            is_public = need_of(path).scope is None
            assert is_public or answer.status_code == 401, answer.text
            assert WORDS not in answer.text
            led = stranger.request(method, filled(path, house.ids), headers=BROWSER)
            assert is_public or led.status_code in (303, 401)
    assert house.everything_of_ann() == before


def test_gradios_routes_open_to_who_may_alone(house: House) -> None:
    before = house.everything_of_ann()
    with house.bob("bob-gradio") as bob, httpx.Client(base_url=house.url) as stranger:
        for mount, method, path in gradio_routes_of(house.app):
            whole = f"{mount}{sample_of(path)}" or "/"
            if need_of(whole).scope is None:
                continue
            with stranger.stream(method, whole) as answer:
                assert answer.status_code == 401, whole
            if mount:
                with bob.stream(method, whole) as answer:
                    assert answer.status_code == 403, whole
    assert house.everything_of_ann() == before
