"""Every documented route, with whatever its document allows and with what it does not.

schemathesis draws requests from the OpenAPI document and compares each response with it. The server
has no model: what its answers say does not matter here. The pages' private routes are tried in
`test_private_routes`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

from app.service import Service
from app.workspace import Workspace
from engine.models.catalogue import BaseModel
from tests.app.conftest import BROWSER, Played, api_alone, listening, settings_of
from tests.app.web.test_identity import account_of
from tests.support.documents import read_in_this_process
from tests.support.scripted_engine import ScriptedEngine

OPERATIONS = [
    "GET /v1/models",
    "GET /v1/models/{model}",
    "POST /v1/chat/completions",
    "POST /v1/responses",
    "GET /v1/responses/{response_id}",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /v1/feedback",
    "GET /v1/feedback/{completion_id}",
    "DELETE /v1/feedback/{completion_id}",
    "GET /api/answers/{answer_id}",
    "POST /api/answers/{answer_id}/vote",
    "POST /api/answers/{answer_id}/correction",
    "POST /api/answers/{answer_id}/copy",
    "POST /api/answers/{answer_id}/flag",
    "POST /api/comparisons",
    "POST /api/comparisons/{comparison_id}/choice",
    "GET /api/consent",
    "PUT /api/consent",
    "GET /api/documents",
    "POST /api/documents",
    "DELETE /api/documents/{document_id}",
    "GET /api/documents/search",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
]
WITH_A_BODY = [each for each in OPERATIONS if each.startswith(("POST", "PUT"))]
load_all_checks()
COMPARED = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]
PROMPTS = {"messages": [{"role": "user", "content": "Say hello."}], "prompt": "Say", "input": "Say"}


@dataclass(frozen=True)
class Documented:
    """A server, its document, and the ids of things that are there."""

    schema: Any
    session: requests.Session
    ids: dict[str, str]


@pytest.fixture(scope="module")
def documented(api_stage: Played) -> Iterator[Documented]:
    document = httpx.get(f"{api_stage.url}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=api_stage.url)
    with read_in_this_process(), requests.Session() as session:
        session.get(api_stage.url, headers=BROWSER)
        yield Documented(schema, session, asked_ids(api_stage.url, session))


@pytest.fixture(scope="module")
def guarded(
    quick_passwords: None, tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel
) -> Iterator[dict[str, Documented]]:
    """A server with accounts, as nobody and as keys of several scopes see it."""
    settings = settings_of(tmp_path_factory.mktemp("guarded"), tiny_base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
        service = Service(Workspace(settings.model_copy(update={"accounts": True})))
    service.start()
    accounts = service.workspace.accounts
    operator = account_of(accounts, "olga", "operator")
    callers: dict[str, Documented] = {}
    with read_in_this_process(), listening(service, api_alone(service)) as url:
        for scopes in (("chat", "feedback", "operate"), ("chat",), ("feedback",), ()):
            session = requests.Session()
            if scopes:
                _, secret = accounts.keys.create(operator.id, scopes)
                session.headers["Authorization"] = f"Bearer {secret}"
            callers["+".join(scopes)] = session_documented(url, session, callers)
        yield callers
    service.close()


def session_documented(
    url: str, session: requests.Session, callers: Mapping[str, Documented]
) -> Documented:
    """What a caller sees of the document that the first one has read, and of what that asked."""
    if callers:
        first = next(iter(callers.values()))
        return Documented(first.schema, session, first.ids)
    schema = schemathesis.openapi.from_dict(session.get(f"{url}/openapi.json").json())
    schema.config.update(base_url=url)
    return Documented(schema, session, asked_ids(url, session))


def asked_ids(url: str, session: requests.Session) -> dict[str, str]:
    """Ask something; returns the ids of what is there then."""
    body: dict[str, Any] = {"messages": PROMPTS["messages"], "n": 2}
    made = session.post(f"{url}/v1/chat/completions", json=body).json()
    left, right = (choice["answer_id"] for choice in made["choices"])
    couple = {"left": left, "right": right}
    compared = session.post(f"{url}/api/comparisons", json=couple).json()
    ids = {"answer_id": left, "completion_id": made["id"], "comparison_id": compared["id"]}
    return {**ids, "model": "live", **couple}


def test_the_document_has_these_operations(documented: Documented) -> None:
    found = {result.ok().label for result in documented.schema.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_response_is_a_documented_one(documented: Documented, operation: str) -> None:
    check(documented, operation, GenerationMode.POSITIVE, examples=12)


@pytest.mark.parametrize("operation", WITH_A_BODY)
def test_each_response_to_what_is_not_allowed_is_a_documented_one(
    documented: Documented, operation: str
) -> None:
    check(documented, operation, GenerationMode.NEGATIVE, examples=6)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_with_accounts_each_response_is_a_documented_one(
    guarded: dict[str, Documented], operation: str
) -> None:
    """To somebody without a key, to keys that may not do it, and to one that may."""
    for documented in guarded.values():
        check(documented, operation, GenerationMode.POSITIVE, examples=2)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_of_many_responses_is_a_documented_one(documented: Documented, operation: str) -> None:
    check(documented, operation, GenerationMode.POSITIVE, examples=300)
    if operation in WITH_A_BODY:
        check(documented, operation, GenerationMode.NEGATIVE, examples=300)


def check(documented: Documented, operation: str, mode: GenerationMode, *, examples: int) -> None:
    """Draw requests for an operation, half of them about things that are there."""
    method, path = operation.split(" ")
    drawn = documented.schema[path][method]

    @seed(7)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn.as_strategy(generation_mode=mode), st.booleans())
    def responds(case: Any, about_something: bool) -> None:
        if about_something:
            make_plausible(case, documented.ids)
        case.call_and_validate(session=documented.session, checks=COMPARED)

    responds()


def make_plausible(case: Any, ids: dict[str, str]) -> None:
    """Let a request name what is there, and ask what a model can answer; the rest stays drawn."""
    for name in set(case.path_parameters or {}) & set(ids):
        case.path_parameters[name] = ids[name]
    if not isinstance(case.body, dict):
        return
    for name, value in {**ids, **PROMPTS, "compared_with": ids["right"]}.items():
        if name in case.body:
            case.body[name] = value
    if "idempotency_key" in case.body:
        case.body["idempotency_key"] = uuid.uuid4().hex
    if isinstance(case.body.get("max_tokens"), int):
        case.body["max_tokens"] = 4
