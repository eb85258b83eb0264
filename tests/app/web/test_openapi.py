"""Every documented route, with whatever its document allows and with what it does not.

schemathesis draws requests from the OpenAPI document and compares each response with it. The server
has no model: what its answers say does not matter here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
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

from tests.app.conftest import BROWSER, Played
from tests.support.documents import read_in_this_process

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
        body: dict[str, Any] = {"messages": PROMPTS["messages"], "n": 2}
        made = session.post(f"{api_stage.url}/v1/chat/completions", json=body).json()
        left, right = (choice["answer_id"] for choice in made["choices"])
        compared = session.post(
            f"{api_stage.url}/api/comparisons", json={"left": left, "right": right}
        ).json()
        ids = {"answer_id": left, "completion_id": made["id"], "comparison_id": compared["id"]}
        yield Documented(schema, session, {**ids, "model": "live", "left": left, "right": right})


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
