"""Every route that the OpenAPI document leaves out, with whatever it allows and with what not.

The pages' own routes are private: their responses are documented nowhere, but no request of a
signed-in person may make the server fail, and a refusal is one sentence. The document here is made
of all routes, on a server with accounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode

from app.service import Service
from app.settings import Settings
from app.web.chat.comparisons_api import comparisons_router
from app.web.chat.drafts_api import drafts_router
from app.web.chat.inbox_api import inbox_router
from app.web.headers import SecurityHeaders
from app.web.server import build_app
from app.workspace import Workspace
from tests.app.conftest import BROWSER, listening
from tests.app.web.matrix_tries import MATRIX
from tests.app.web.test_identity import PASSWORD, account_of
from tests.app.web.test_matrix import NOWHERE, flattened
from tests.app.web.test_openapi import OPERATIONS
from tests.support.documents import read_in_this_process
from tests.support.scripted_engine import ScriptedEngine

# The others are gradio's pages and FastAPI's
PREFIXES = ("/chat/", "/account", "/console/comparisons", "/console/drafts", "/console/inbox")
PRIVATE = sorted(
    f"{method} {path}"
    for method, path in MATRIX
    if f"{method} {path}" not in OPERATIONS and path.startswith(PREFIXES)
)
FORM_FIELDS = ("name", "password", "again", "old", "token", "next", "keep", "scope", "label")
FORMS = st.dictionaries(st.sampled_from(FORM_FIELDS), st.text(max_size=20), max_size=4)
BODIES = st.one_of(st.binary(max_size=200), FORMS)


@dataclass(frozen=True)
class Private:
    """A server with accounts, and a document of all of its routes."""

    service: Service
    url: str
    schema: Any

    def operator(self, name: str) -> tuple[requests.Session, dict[str, str]]:
        """A new operator's browser, and the ids of what they have asked and said."""
        account_of(self.service.workspace.accounts, name, "operator")
        session = requests.Session()
        session.headers.update(BROWSER)
        form = {"name": name, "password": PASSWORD, "next": "/"}
        came = session.post(f"{self.url}/account/login", data=form, allow_redirects=False)
        assert came.status_code == 303
        session.post(f"{self.url}/chat/questions", json={"question": "Why is the sea salt?"})
        (listed,) = session.get(f"{self.url}/chat/conversations").json()["conversations"]
        whole = session.get(f"{self.url}/chat/conversations/{listed['id']}").json()
        answer_id = whole["turns"][0]["answer"]["id"]
        session.post(f"{self.url}/api/answers/{answer_id}/vote", json={"vote": -1})
        events = session.get(f"{self.url}/chat/person/data").json()["statements"]
        ids = {"conversation_id": listed["id"], "answer_id": answer_id, "tool_name": "clock"}
        return session, {**ids, "event_id": str(events[0]["id"])}


@pytest.fixture(scope="module")
def private(quick_passwords: None, module_settings: Settings) -> Iterator[Private]:
    changes = {
        "accounts": True,
        "tools": ("clock",),
        "oidc_issuer": NOWHERE,
        "oidc_client_id": "burnish",
        "rate_limit": 100_000,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
        service = Service(Workspace(module_settings.model_copy(update=changes)))
    service.start()

    def add_console(app: FastAPI) -> None:
        """As `app.serve` does, without gradio's pages."""
        app.include_router(comparisons_router(service))
        app.include_router(drafts_router(service))
        app.include_router(inbox_router(service.workspace))

    app = build_app(service, add_console)
    routes = [route for route in flattened(app.routes) if isinstance(route, APIRoute)]
    for route in routes:
        route.include_in_schema = True
    document = get_openapi(title="all", version="1", routes=routes)
    with read_in_this_process(), listening(service, SecurityHeaders(app)) as url:
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=url)
        yield Private(service, url, schema)
    service.close()


def test_the_document_has_every_route(private: Private) -> None:
    found = {result.ok().label for result in private.schema.get_all_operations()}
    assert found >= {*OPERATIONS, *PRIVATE}


@pytest.mark.parametrize("operation", PRIVATE)
def test_no_request_makes_the_server_fail(private: Private, operation: str) -> None:
    check(private, operation, examples=5)


@pytest.mark.slow
@pytest.mark.parametrize("operation", PRIVATE)
def test_none_of_many_requests_makes_the_server_fail(private: Private, operation: str) -> None:
    check(private, operation, examples=300)


def check(private: Private, operation: str, *, examples: int) -> None:
    method, path = operation.split(" ")
    session, ids = private.operator(f"operator-{PRIVATE.index(operation)}-{examples}")
    drawn = private.schema[path][method]
    strategies = [
        drawn.as_strategy(generation_mode=mode)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE or drawn.body or drawn.query
    ]

    @seed(7)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(strategies), st.booleans(), BODIES)
    def responds(case: Any, about_something: bool, body: Any) -> None:
        if about_something:
            for name in set(case.path_parameters or {}) & set(ids):
                case.path_parameters[name] = ids[name]
        free = {"data": body} if case.body is NOT_SET and method != "GET" else {}
        answer = case.call(session=session, allow_redirects=False, timeout=60, **free)
        assert answer.status_code < 500, (answer.status_code, answer.text)
        if answer.status_code >= 400 and answer.headers["content-type"] == ["application/json"]:
            error = answer.json()["error"]
            assert error["message"] and error["type"]

    responds()
