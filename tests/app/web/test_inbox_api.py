"""The console's inbox over HTTP: shown as text, searched in a person's own words, looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.settings import Settings
from app.web.chat.inbox_api import inbox_router
from app.web.error_responses import add_error_handlers
from app.workspace import Workspace
from engine.prompts.modes import make_template

PLAIN = make_template("plain", (), "You are helpful.")


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    app = FastAPI()
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


def test_a_long_inbox_comes_in_pages(workspace: Workspace, client: TestClient) -> None:
    for number in range(21):
        disliked(workspace, number, f"Question {number}?")
    newest = client.get("/console/inbox").text
    assert "1 to 20 of 21" in newest
    assert 'href="/console/inbox?first=20"' in newest
    assert "21 to 21 of 21" in client.get("/console/inbox?first=20").text
