"""Votes, corrections and comparisons over HTTP: everyone judges their own answers alone."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.service import Service
from tests.app.web.completing import Person, complete


@pytest.fixture
def url(api_url: str) -> str:
    """No test here looks at a page."""
    return api_url


# Every route that takes an id, as (method, path, body): {a} and {b} are two answers to one
# question, {c} is a comparison of them
TAKES_AN_ID: list[tuple[str, str, Any]] = [
    ("GET", "/api/answers/{a}", None),
    ("POST", "/api/answers/{a}/vote", {"vote": 1, "reasons": ["followed"], "comment": "yes"}),
    ("POST", "/api/answers/{a}/correction", {"text": "No."}),
    ("POST", "/api/answers/{a}/copy", None),
    ("POST", "/api/answers/{a}/flag", None),
    ("POST", "/api/comparisons", {"left": "{a}", "right": "{b}"}),
    ("POST", "/api/comparisons/{c}/choice", {"choice": "left"}),
]


def two_answers(client: httpx.Client) -> dict[str, str]:
    """Two answers to one question of this person's and a comparison of them, by their letters."""
    choices = complete(client, n=2, temperature=1.0)["choices"]
    ids = {letter: choice["answer_id"] for letter, choice in zip("ab", choices, strict=True)}
    asked = client.post("/api/comparisons", json={"left": ids["a"], "right": ids["b"]})
    return {**ids, "c": asked.json()["id"]}


def send(
    client: httpx.Client, method: str, path: str, body: Any, ids: dict[str, str]
) -> httpx.Response:
    if path == "/api/comparisons":
        body = {side: letter.format(**ids) for side, letter in body.items()}
    return client.request(method, path.format(**ids), json=body)


def test_the_matrix_knows_every_route_that_takes_an_id(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    # Documents have no answers; the same is shown of them in test_documents_api.py
    of_people = [p for p in paths if p.startswith("/api/") and not p.startswith("/api/documents")]
    takes_an_id = {path for path in of_people if "{" in path or "comparisons" in path}
    known = {path.format(a="{answer_id}", c="{comparison_id}") for _, path, _ in TAKES_AN_ID}
    assert takes_an_id == known


def test_nobody_sees_or_judges_anothers_answer(person: Person, service: Service) -> None:
    ann, bob = person(), person()
    mine = two_answers(ann)
    nowhere = dict.fromkeys("abc", "0" * 32)
    before = everything_said(service)
    for method, path, body in TAKES_AN_ID:
        foreign, unknown = (send(bob, method, path, body, ids) for ids in (mine, nowhere))
        assert foreign.status_code == unknown.status_code == 404, path
        assert without_ids(foreign, mine) == without_ids(unknown, nowhere), path
    assert everything_said(service) == before
    for method, path, body in TAKES_AN_ID:
        assert send(ann, method, path, body, mine).status_code == 200, path
    counts = service.workspace.store.counts()
    said = ("votes", "corrections", "copies", "flags", "comparisons")
    assert [counts[kind] for kind in said] == [1, 1, 1, 1, 1]


def test_ones_own_answer_is_not_compared_with_anothers(person: Person, service: Service) -> None:
    ann, bob = person(), person()
    hers, his = two_answers(ann), two_answers(bob)
    before = everything_said(service)
    for left, right in ((hers["a"], his["a"]), (his["a"], hers["a"])):
        refused = bob.post("/api/comparisons", json={"left": left, "right": right})
        assert refused.status_code == 404
    assert everything_said(service) == before


def without_ids(response: httpx.Response, ids: dict[str, str]) -> str:
    text = response.text
    for one in ids.values():
        text = text.replace(one, "")
    return text


def everything_said(service: Service) -> tuple[int, int]:
    """How many events and comparisons there are."""
    with service.workspace.database.read() as connection:
        (comparisons,) = connection.exec_driver_sql("SELECT count(*) FROM comparisons").one()
    return service.workspace.store.event_count(), comparisons


def test_a_vote_carries_its_reasons_and_comment(person: Person, service: Service) -> None:
    client = person()
    route = f"/api/answers/{complete(client)['id']}/vote"
    body = {"vote": -1, "reasons": ["too_long", "wrong_facts"], "comment": "Not in 1492."}
    assert client.post(route, json=body).status_code == 200
    with service.workspace.database.read() as connection:
        row = connection.exec_driver_sql("SELECT vote, reasons, comment FROM events").one()
    assert (row[0], json.loads(row[1]), row[2]) == (-1, ["too_long", "wrong_facts"], "Not in 1492.")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"vote": -1, "reasons": ["boring"]}, "wrong_facts"),  # names what it knows
        ({"vote": 1, "reasons": ["wrong_facts"]}, "right_facts"),  # a reason of the other thumb
        ({"vote": 0, "reasons": ["other"]}, "known: none"),
        ({"vote": 1, "comment": "nul \x00"}, "NUL"),
        ({"vote": 1, "comment": "a" * 4_001}, "4001"),
    ],
)
def test_words_that_cannot_be_stored_get_422_and_change_nothing(
    person: Person, service: Service, body: dict[str, Any], said: str
) -> None:
    client = person()
    route = f"/api/answers/{complete(client)['id']}/vote"
    refused = client.post(route, json=body)
    assert refused.status_code == 422
    assert said in refused.json()["error"]["message"]
    assert service.workspace.store.event_count() == 0


def test_a_comparison_keeps_who_stood_where_and_the_last_choice(
    person: Person, service: Service
) -> None:
    client = person()
    ids = two_answers(client)
    route = f"/api/comparisons/{ids['c']}/choice"
    for choice, key in (("left", "1"), ("right", "2"), ("left", "1")):  # the last is a replay
        body = {"choice": choice, "idempotency_key": key}
        assert client.post(route, json=body).status_code == 200
    assert client.post(route, json={"choice": "neither"}).status_code == 400
    same = client.post("/api/comparisons", json={"left": ids["a"], "right": ids["a"]})
    assert same.status_code == 400
    with service.workspace.database.read() as connection:
        sides = connection.exec_driver_sql(
            "SELECT left_answer_id, right_answer_id FROM comparisons"
        ).one()
        choices = connection.exec_driver_sql("SELECT choice FROM events ORDER BY id").scalars()
        assert tuple(sides) == (ids["a"], ids["b"])
        assert list(choices) == ["left", "right"]


def test_consent_is_each_persons_own(person: Person) -> None:
    ann, bob = person(), person()
    assert ann.get("/api/consent").json() == {"allowed": True}  # unless the operator says opt-in
    assert ann.put("/api/consent", json={"allowed": False}).json() == {"allowed": False}
    assert ann.get("/api/consent").json() == {"allowed": False}
    assert bob.get("/api/consent").json() == {"allowed": True}
    assert ann.put("/api/consent", json={"allowed": "perhaps"}).status_code == 400
    assert ann.put("/api/consent", json={"allowed": True}).json() == {"allowed": True}


def test_a_replayed_vote_changes_nothing(person: Person, service: Service) -> None:
    client = person()
    route = f"/api/answers/{complete(client)['id']}/vote"
    for vote, key in ((1, "a"), (-1, "b"), (1, "a")):
        assert client.post(route, json={"vote": vote, "idempotency_key": key}).status_code == 200
    assert service.workspace.store.counts()["votes_down"] == 1
    assert service.workspace.store.event_count() == 2
