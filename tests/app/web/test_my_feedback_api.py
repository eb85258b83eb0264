"""The requests of the page "My feedback": whose they are, in what pages, and what they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.texts import error_text
from app.web.chat.my_feedback_api import NO_COOKIE
from engine.errors import InvalidInput
from tests.app.conftest import BROWSER, Played
from tests.app.stored import rows
from tests.app.web.test_chat_api import Stream, ask

Person = Callable[..., httpx.Client]
PATHS = (
    ("GET", "/chat/feedback"),
    ("GET", "/chat/feedback/1"),
    ("GET", "/chat/examples"),
    ("DELETE", "/chat/examples/{answer}"),
    ("POST", "/chat/examples/{answer}/restore"),
    ("GET", "/chat/answers/{answer}/examples"),
    ("GET", "/chat/person/data"),
    ("POST", "/chat/person/forget"),
)


@pytest.fixture
def person(played: Played) -> Iterator[Person]:
    """A new person's browser at the shared server, each time it is called."""
    clients: list[httpx.Client] = []

    def make(**headers: str) -> httpx.Client:
        clients.append(httpx.Client(base_url=played.url, timeout=60, headers=headers))
        clients[-1].get("/", headers=BROWSER)
        return clients[-1]

    played.engine.says = "Quite tall."
    yield make
    for client in clients:
        client.close()


def vote(client: httpx.Client, answer: str, value: int = 1) -> None:
    assert client.post(f"/api/answers/{answer}/vote", json={"vote": value}).status_code == 200


def feedback(client: httpx.Client, query: str = "") -> dict[str, Any]:
    return dict(client.get(f"/chat/feedback{query}").json())


def test_a_vote_is_told_with_its_example_at_once(person: Person) -> None:
    client = person()
    answer = ask(client, "How tall is an oak?").answer
    vote(client, answer)
    told = feedback(client)
    (said,) = told["statements"]
    assert (said["kind"], said["vote"], said["answers"]) == ("vote", 1, [answer])
    assert said["made"] == ["unpaired", "demonstrations"]
    assert said["became"] in ("teaches", "measures")  # the conversation's id is drawn by lot
    assert told["summary"] == {
        "said": 1,
        "teaches": 0,
        "measures": 0,
        "waits": 0,
        "unused": 0,
        "learnt": 0,
        said["became"]: 1,
    }
    assert (said["snapshot"], said["release"], told["more"]) == ("", None, False)
    texts = client.get(f"/chat/feedback/{said['event']}").json()
    assert [side["id"] for side in texts["answers"]] == [answer]
    assert "Quite tall." in texts["answers"][0]["html"]


def test_reasons_come_in_the_persons_language(person: Person) -> None:
    client = person(**{"accept-language": "zh"})
    answer = ask(client).answer
    vote(client, answer)
    client.post(f"/api/answers/{answer}/flag", json={})
    flag, said = feedback(client)["statements"]
    assert (flag["became"], said["became"], said["why_not"]) == (
        "reported",
        "unused",
        ["被举报的文本"],
    )


@pytest.mark.integration
def test_many_statements_come_in_pages(person: Person) -> None:
    client = person()
    first = ask(client)
    here = {"conversation_id": first.conversation}
    answers = [first.answer] + [ask(client, f"And {n}?", **here).answer for n in range(21)]
    for answer in answers:
        vote(client, answer, -1)
    page = feedback(client)
    assert (page["summary"]["said"], len(page["statements"]), page["more"]) == (22, 20, True)
    rest = feedback(client, f"?before={page['statements'][-1]['event']}")
    assert [said["answers"][0] for said in (*page["statements"], *rest["statements"])] == [
        *reversed(answers)
    ]
    assert rest["more"] is False


def test_asking_again_stores_nothing_and_names_the_release(person: Person, played: Played) -> None:
    client, bob = person(), person()
    answer = ask(client, "How tall is an oak?", sampling={"temperature": 0.25, "seed": 7}).answer
    client.post(f"/api/answers/{answer}/correction", json={"text": "30 m."})
    before = played.service.workspace.store.counts()
    stream = Stream(client.post(f"/chat/answers/{answer}/now", json={}))
    assert stream.ended["text"] == "Quite tall."
    assert stream.ended["release"] == ""  # the base model
    request = played.engine.requests[-1]
    assert (request.sampling.temperature, request.sampling.seed) == (0.25, 7)
    assert [m.content for m in request.messages if m.role != "system"] == ["How tall is an oak?"]
    assert played.service.workspace.store.counts() == before
    assert bob.post(f"/chat/answers/{answer}/now", json={}).status_code == 404


def test_examples_are_listed_removed_and_restored(person: Person) -> None:
    client, bob = person(), person()
    answer = ask(client, "How tall is an oak?").answer
    vote(client, answer)
    (example,) = client.get("/chat/examples").json()["examples"]
    assert example == {
        "answer": answer,
        "source": "like",
        "question": "How tall is an oak?",
        "text": "Quite tall.",
        "for_everybody": False,
    }
    similar = ask(client, "How tall is an elm?").answer
    (used,) = client.get(f"/chat/answers/{similar}/examples").json()["examples"]
    assert {**used, "for_everybody": False} == {**example, "removed": False}
    assert client.delete(f"/chat/examples/{answer}").status_code == 200
    assert client.get("/chat/examples").json() == {"examples": [], "count": 0}
    (used_then,) = client.get(f"/chat/answers/{similar}/examples").json()["examples"]
    assert used_then["removed"] is True
    assert client.post(f"/chat/examples/{answer}/restore", json={}).status_code == 200
    assert client.get("/chat/examples").json()["count"] == 1
    assert bob.get(f"/chat/answers/{similar}/examples").status_code == 404
    assert bob.delete(f"/chat/examples/{answer}").status_code == 404


def test_a_shared_example_is_told_without_its_author(person: Person, played: Played) -> None:
    ann, bob = person(), person()
    asked = ask(ann, "How tall is an oak?")
    vote(ann, asked.answer)
    shared = played.service.workspace.shared_examples
    shared.approve(asked.answer)
    similar = ask(bob, "How tall is an elm?").answer
    path = f"/chat/answers/{similar}/examples"
    (used,) = bob.get(path).json()["examples"]
    assert used == {
        "answer": asked.answer,
        "source": "shared",
        "question": "How tall is an oak?",
        "text": "Quite tall.",
        "removed": False,
    }
    assert [e["for_everybody"] for e in ann.get("/chat/examples").json()["examples"]] == [True]
    assert bob.get("/chat/examples").json()["count"] == 0
    assert bob.post(f"/api/answers/{asked.answer}/vote", json={"vote": 1}).status_code == 404
    assert bob.delete(f"/chat/examples/{asked.answer}").status_code == 200
    assert [e["removed"] for e in bob.get(path).json()["examples"]] == [True]
    shared.withdraw(asked.answer)
    assert bob.get(path).json()["examples"] == []


def test_nothing_of_another_person_is_told(person: Person) -> None:
    ann, bob = person(), person()
    vote(ann, ask(ann, "Ann's own question?").answer)
    (said,) = feedback(ann)["statements"]
    assert feedback(bob)["statements"] == []
    assert bob.get(f"/chat/feedback/{said['event']}").status_code == 404
    assert "Ann's own question?" not in bob.get("/chat/person/data").text
    mine = ann.get("/chat/person/data")
    assert mine.headers["content-disposition"] == 'attachment; filename="burnish-my-data.json"'
    assert "Ann's own question?" in mine.text


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_caller_without_a_cookie_is_refused(
    person: Person, played: Played, method: str, path: str
) -> None:
    stranger = httpx.Client(base_url=played.url)
    answer = ask(stranger, "Said by a program?").answer
    vote(stranger, answer)
    response = stranger.request(method, path.format(answer=answer))
    assert (response.status_code, response.json()["error"]["message"]) == (400, NO_COOKIE)
    assert rows(played.service, "SELECT id FROM answers WHERE id = ?", answer) != []
    stranger.close()


def test_that_refusal_is_said_in_chinese() -> None:
    assert "Cookie" in error_text(InvalidInput(NO_COOKIE), "zh")
    assert NO_COOKIE not in error_text(InvalidInput(NO_COOKIE), "zh")


@pytest.mark.usefixtures("long_answers")
def test_forgetting_stops_what_is_being_answered(
    person: Person, played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    ann = person()
    words = "What will be forgotten?"
    question = {"question": words, "conversation_id": None, "parent_answer_id": None}
    with ann.stream("POST", "/chat/questions", json=question) as answer:
        lines = answer.iter_lines()
        assert any("begin" in line for line in lines)
        receipt = ann.post("/chat/person/forget", json={}).json()
        assert receipt["conversations"] == 1
        assert any("end" in line for line in lines)
    assert rows(played.service, "SELECT id FROM answers WHERE status = 'streaming'") == []
    assert rows(played.service, "SELECT id FROM turns WHERE question = ?", words) == []
    assert caplog.text == ""  # no answer was lost


def test_forgetting_gives_the_browser_another_name_and_spares_the_others(
    person: Person, played: Played
) -> None:
    ann, bob = person(), person()
    vote(ann, ask(ann).answer)
    kept = ask(bob, "Bob's question?")
    before = ann.cookies["burnish_session"]
    receipt = ann.post("/chat/person/forget", json={}).json()
    assert receipt == {"status": "forgotten", "conversations": 1, "releases": 0}
    assert ann.cookies["burnish_session"] != before
    assert ann.get("/chat/conversations").json()["conversations"] == []
    assert feedback(ann)["summary"]["said"] == 0
    again = ann.post("/chat/person/forget", json={})  # nothing is known of them
    assert again.json() == {"status": "forgotten", "conversations": 0, "releases": 0}
    listed = bob.get("/chat/conversations").json()["conversations"]
    assert [each["id"] for each in listed] == [kept.conversation]
