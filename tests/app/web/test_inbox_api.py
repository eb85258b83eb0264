"""The console's inbox over HTTP: shown as text, searched in a person's own words, looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from app.learning.desk import new_alerts
from app.settings import Settings
from app.web.chat.inbox_api import inbox_router
from app.web.error_responses import add_error_handlers
from app.workspace import Workspace
from engine.prompts.modes import make_template
from feedback_store.accounts.person import Person
from feedback_store.curation.bursts import PACE_VOTES

PLAIN = make_template("plain", (), "You are helpful.")


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


class Somebody:
    """Stands for the identity layer: whoever asks is the operator of a home without accounts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "person": Person("browser", "operator")}, receive, send)


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    app = FastAPI()
    app.add_middleware(Somebody)
    add_error_handlers(app)
    app.include_router(inbox_router(workspace))
    return TestClient(app, follow_redirects=False, headers={"accept-language": "en"})


def disliked(workspace: Workspace, number: int, question: str, **said: object) -> None:
    turn = workspace.store.add_turn(
        user_id="ann", question=question, template=PLAIN, conversation_id=f"c{number}"
    )
    answer = workspace.store.begin_answer(
        turn.id, base_digest="sha256:base", adapter_digest=None, sampling={}, seed=0
    )
    workspace.store.finish_answer(answer, status="done", text="<i>Far.</i>", complete=True)
    workspace.store.vote(answer, "ann", -1, **said)  # type: ignore[arg-type]


def test_what_people_wrote_is_shown_as_text(workspace: Workspace, client: TestClient) -> None:
    disliked(workspace, 1, "<script>alert(1)</script>", comment="<b>bad</b>")
    page = client.get("/console/inbox").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "&lt;i&gt;Far.&lt;/i&gt;" in page
    assert "<script>alert" not in page
    assert "1 to 1 of 1" in page


def test_a_reason_is_found_by_its_name_in_each_language(
    workspace: Workspace, client: TestClient
) -> None:
    disliked(workspace, 1, "Where?", reasons=["too_long"])
    assert "Nothing found." in client.get("/console/inbox?words=too+short").text
    assert "Where?" in client.get("/console/inbox?words=TOO+long").text
    chinese = {"accept-language": "zh"}
    found = client.get("/console/inbox", params={"words": "太长"}, headers=chinese)
    assert "Where?" in found.text


def test_a_vote_is_looked_at_and_the_filters_stay(workspace: Workspace, client: TestClient) -> None:
    disliked(workspace, 1, "Where?")
    (vote,), _ = workspace.inbox.page(count=1)
    back = client.post(f"/console/inbox/{vote.event_id}/look_at?words=where")
    assert (back.status_code, back.headers["location"]) == (303, "/console/inbox?words=where")
    assert "Nothing here that you have not looked at." in client.get("/console/inbox").text
    assert 'class="looked"' in client.get("/console/inbox?all=1").text
    client.post(f"/console/inbox/{vote.event_id}/put_back")
    assert workspace.inbox.count_new() == 1
    assert client.post("/console/inbox/77/look_at").status_code == 404


def voted_fast(workspace: Workspace, count: int = PACE_VOTES + 1) -> None:
    """Bob votes faster than anybody reads."""
    for number in range(count):
        turn = workspace.store.add_turn(
            user_id="bob", question="Why?", template=PLAIN, conversation_id=f"fast{number}"
        )
        answer = workspace.store.begin_answer(
            turn.id, base_digest="sha256:base", adapter_digest=None, sampling={}, seed=0
        )
        workspace.store.finish_answer(answer, status="done", text=f"{number}.", complete=True)
        workspace.store.vote(answer, "bob", 1)


def test_an_alert_that_was_looked_at_is_new_again_when_it_changes(
    workspace: Workspace, client: TestClient
) -> None:
    voted_fast(workspace)
    (alert,) = workspace.alerts()
    there = f"/console/inbox/alerts/{alert['id']}"
    back = client.post(f"{there}/look_at?words=where")
    assert back.headers["location"] == "/console/inbox?words=where#alerts"
    (looked,) = workspace.alerts()
    assert (looked["looked_by"], looked["id"]) == ("console", alert["id"])
    assert "looked at by console" in client.get("/console/inbox").text
    client.post(f"{there}/put_back")
    assert new_alerts(workspace.alerts()) == 1
    client.post(f"{there}/look_at")
    assert new_alerts(workspace.alerts()) == 0
    voted_fast(workspace, 1)  # the burst goes on
    (grown,) = workspace.alerts()
    assert (grown["count"], grown["looked_at"]) == (PACE_VOTES + 2, None)
    assert client.post(f"{there}/look_at").status_code == 404  # it is another one now
    acts = [(entry.actor, entry.action) for entry in workspace.accounts.audit.entries()]
    assert acts == [
        ("console", "look at alert"),
        ("console", "put alert back"),
        ("console", "look at alert"),
    ]


def test_a_long_inbox_comes_in_pages(workspace: Workspace, client: TestClient) -> None:
    for number in range(21):
        disliked(workspace, number, f"Question {number}?")
    newest = client.get("/console/inbox").text
    assert "1 to 20 of 21" in newest
    assert 'href="/console/inbox?first=20"' in newest
    assert "21 to 21 of 21" in client.get("/console/inbox?first=20").text
