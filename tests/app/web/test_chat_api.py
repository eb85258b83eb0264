"""The chat page's requests: conversations, branches, and answers as streams."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from shutil import rmtree
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.html.rendering import answer_html
from app.service import Service
from deploy.releases.record import Release
from tests.app.conftest import api_alone
from tests.helpers import make_bundle

Person = Callable[[], httpx.Client]
LONG = "One, two and three. " * 200  # longer than any answer here may be


@pytest.fixture
def url(api_url: str) -> str:
    """No test here looks at a page."""
    return api_url


class Stream:
    """What a page is told of one answer."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.text
        self.begun: dict[str, Any] = {}
        self.ended: dict[str, Any] = {}
        self.html = {"t": "", "a": ""}
        for event in response.text.strip().split("\n\n"):
            *kind, data = event.split("\n")
            value = json.loads(data.removeprefix("data: "))
            if kind == ["event: begin"]:
                self.begun = value
            elif kind == ["event: end"]:
                self.ended = value
            else:
                part, keep, tail = value
                kept = self.html[part].encode("utf-16-le")[: 2 * keep].decode("utf-16-le")
                self.html[part] = kept + tail

    @property
    def conversation(self) -> str:
        return str(self.ended["conversation"]["id"])

    @property
    def answer(self) -> str:
        return str(self.ended["turn"]["answer"]["id"])


def ask(client: httpx.Client, question: str = "Say hello.", **more: Any) -> Stream:
    return Stream(client.post("/chat/questions", json={"question": question, **more}))


def view(client: httpx.Client, conversation: str) -> dict[str, Any]:
    return dict(client.get(f"/chat/conversations/{conversation}").json())


def test_the_patches_of_a_stream_add_up_to_the_stored_answer(person: Person) -> None:
    client = person()
    stream = ask(client)
    stored = client.get(f"/api/answers/{stream.answer}").json()
    assert stream.html["a"] == answer_html(stored["text"])
    assert stream.begun["turn"]["answer"]["status"] == "streaming"
    assert stream.ended["turn"] == view(client, stream.conversation)["turns"][0]
    assert stream.ended["status"] == "done"


def test_a_conversation_is_listed_with_a_title_and_is_its_persons_alone(person: Person) -> None:
    ann, bob = person(), person()
    stream = ask(ann, "What is the sea?")
    (listed,) = ann.get("/chat/conversations").json()["conversations"]
    assert (listed["id"], listed["title"]) == (stream.conversation, "What is the sea?")
    assert bob.get("/chat/conversations").json()["conversations"] == []
    for path in ("", "/export"):
        assert bob.get(f"/chat/conversations/{stream.conversation}{path}").status_code == 404
    for path in ("again", "continue", "stop"):
        refused = bob.post(f"/chat/answers/{stream.answer}/{path}", json={})
        assert refused.status_code == 404
    refused = bob.post(
        "/chat/questions", json={"question": "Mine?", "conversation_id": stream.conversation}
    )
    assert refused.status_code == 404


def test_questions_follow_each_other_and_an_edited_one_is_another_branch(person: Person) -> None:
    client = person()
    first = ask(client, "One?")
    here = {"conversation_id": first.conversation}
    second = ask(client, "Two?", parent_answer_id=first.answer, **here)
    edited = ask(client, "Three?", parent_answer_id=first.answer, **here)
    shown = view(client, first.conversation)["turns"]
    assert [turn["question"] for turn in shown] == ["One?", "Three?"]
    assert shown[1]["siblings"] == [second.ended["turn"]["id"], edited.ended["turn"]["id"]]
    back = client.post(
        f"/chat/conversations/{first.conversation}", json={"turn": shown[1]["siblings"][0]}
    ).json()
    assert [turn["question"] for turn in back["turns"]] == ["One?", "Two?"]


def test_another_answer_is_a_sibling_and_a_changed_one_has_the_same_question(
    person: Person, service: Service
) -> None:
    client = person()
    first = ask(client, "What is the sea?")
    again = Stream(client.post(f"/chat/answers/{first.answer}/again", json={}))
    change = {"change": "shorter", "instruction": "Write it again, much shorter."}
    changed = Stream(client.post(f"/chat/answers/{first.answer}/again", json=change))
    (turn,) = view(client, first.conversation)["turns"]
    assert turn["answers"] == [first.answer, again.answer, changed.answer]
    assert turn["answer"]["id"] == changed.answer
    assert turn["question"] == "What is the sea?"
    assert turn["answer"]["sampling"]["change"] == "shorter"
    user = service.workspace.conversations.view(first.conversation, _user(service)).turns[0].turn
    _, prompt = service.workspace.store.shown_prompt(changed.answer, user.user_id)
    assert "much shorter" not in "".join(message.content for message in prompt)


def test_an_answer_goes_on_without_its_page_and_another_page_joins(
    person: Person, model_says: Callable[[str], None]
) -> None:
    model_says(LONG)
    client = person()
    long = {"question": "Go on.", "sampling": {"max_new_tokens": 400}}
    with client.stream("POST", "/chat/questions", json=long) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: begin"
        begun = json.loads(next(lines).removeprefix("data: "))
    conversation = begun["conversation"]["id"]
    assert view(client, conversation)["running"] == [begun["live"]]
    joined = Stream(client.get(f"/chat/answers/{begun['live']}/stream"))
    assert joined.ended["status"] == "done"
    assert joined.html["a"] == joined.ended["turn"]["answer"]["html"]
    assert view(client, conversation)["running"] == []
    assert client.get(f"/chat/answers/{begun['live']}/stream").status_code == 404


def test_a_stopped_answer_is_continued_in_place(
    person: Person, model_says: Callable[[str], None]
) -> None:
    model_says(LONG)
    client = person()
    long = {"question": "Go on.", "sampling": {"max_new_tokens": 1_000}}
    with client.stream("POST", "/chat/questions", json=long) as response:
        lines = response.iter_lines()
        next(lines)
        begun = json.loads(next(lines).removeprefix("data: "))
        assert client.post(f"/chat/answers/{begun['live']}/stop").status_code == 200
        rest = "\n".join(lines)
    assert '"status":"stopped"' in rest
    before = client.get(f"/api/answers/{begun['live']}").json()
    more = Stream(client.post(f"/chat/answers/{begun['live']}/continue", json={}))
    after = client.get(f"/api/answers/{begun['live']}").json()
    assert more.answer == begun["live"]
    assert after["text"].startswith(before["text"])
    assert len(after["text"]) > len(before["text"])


def test_nothing_of_a_temporary_chat_is_stored(person: Person, service: Service) -> None:
    client, before = person(), service.workspace.store.counts()
    said = [{"role": "user", "content": "I am Ann."}, {"role": "assistant", "content": "Hello."}]
    stream = ask(client, "Who am I?", temporary=True, history=said)
    assert stream.ended["text"]
    assert stream.html["a"] == answer_html(stream.ended["text"])
    assert "turn" not in stream.ended
    assert service.workspace.store.counts() == before
    assert client.get("/chat/conversations").json()["conversations"] == []


@pytest.mark.integration
def test_a_long_conversation_comes_in_pages(person: Person) -> None:
    client = person()
    last = ask(client, "0", sampling={"max_new_tokens": 1})
    for number in range(1, 32):
        last = ask(
            client,
            str(number),
            sampling={"max_new_tokens": 1},
            parent_answer_id=last.answer,
            conversation_id=last.conversation,
        )
    newest = view(client, last.conversation)
    assert [turn["question"] for turn in newest["turns"]] == [str(n) for n in range(2, 32)]
    assert newest["earlier"]
    first = newest["turns"][0]["id"]
    earlier = client.get(f"/chat/conversations/{last.conversation}?before={first}").json()
    assert [turn["question"] for turn in earlier["turns"]] == ["0", "1"]
    assert not earlier["earlier"]


def test_a_deleted_conversation_can_be_restored_and_is_erased_later(
    person: Person, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = person()
    stream = ask(client, "What is the sea?")
    address = f"/chat/conversations/{stream.conversation}"
    assert client.delete(address).status_code == 200
    assert client.get(address).status_code == 404
    service.erase_deleted()  # too early
    assert client.post(f"{address}/restore").status_code == 200
    assert client.get(address).status_code == 200
    client.delete(address)
    now = time.time()
    monkeypatch.setattr("app.service.time.time", lambda: now + 60)
    service.erase_deleted()
    assert client.post(f"{address}/restore").status_code == 404
    assert client.get(f"/api/answers/{stream.answer}").status_code == 404


def test_what_is_typed_is_found_renamed_pinned_and_exported(person: Person) -> None:
    client = person()
    stream = ask(client, "What is the lighthouse?")
    ask(client, "潮汐是什么？")
    address = f"/chat/conversations/{stream.conversation}"
    for words, found in (("light", 1), ("潮汐", 1), ("nothing", 0)):
        hits = client.get("/chat/conversations", params={"words": words}).json()["found"]
        assert len(hits) == found, words
    client.post(address, json={"title": "Towers", "pinned": True})
    listed = client.get("/chat/conversations").json()
    assert [row["title"] for row in listed["pinned"]] == ["Towers"]
    exported = client.get(f"{address}/export")
    assert "What is the lighthouse?" in exported.text
    assert client.get(f"{address}/export?form=json").json()["turns"]


def test_the_page_is_told_its_words_in_the_persons_language(person: Person) -> None:
    client = person()
    boot = client.get("/chat/boot", headers={"accept-language": "zh-CN"}).json()
    assert (boot["language"], boot["texts"]["new_chat"]) == ("zh", "新对话")
    client.cookies.set("burnish_language", "en")
    chosen = client.get("/chat/boot", headers={"accept-language": "zh-CN"}).json()
    assert (chosen["language"], chosen["texts"]["new_chat"]) == ("en", "New chat")
    assert set(boot["reasons"]["-1"]) <= {
        key.removeprefix("reason_") for key in boot["texts"] if key.startswith("reason_")
    }


def _user(service: Service) -> str:
    with service.workspace.database.read() as connection:
        return str(connection.exec_driver_sql("SELECT user_id FROM turns").scalars().first())


def test_an_operator_chooses_the_release_that_answers(
    person: Person, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = person()
    assert client.get("/chat/boot").json()["releases"] == []  # there is none to choose
    bundle = make_bundle(service.workspace.home.bundles, service.workspace.base)
    known = [Release(bundle, {"verdict": "better"}, 0.0)]
    monkeypatch.setattr(service.workspace.registry, "list", lambda: known)
    assert client.get("/chat/boot").json()["releases"] == ["live", "base", bundle]
    first = ask(client, "What is the sea?", release=bundle)
    again = client.post(f"/chat/answers/{first.answer}/again", json={"release": "base"})
    written = [first.ended["turn"]["answer"], Stream(again).ended["turn"]["answer"]]
    assert [answer["release"] for answer in written] == [bundle[7:19], ""]
    refused = client.post("/chat/questions", json={"question": "And?", "release": "nothing"})
    assert refused.status_code == 404
    rmtree(service.workspace.home.bundles / bundle[7:])


def test_a_guest_of_an_operator_with_a_password_chooses_no_release(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = service.workspace.settings.model_copy(
        update={"operator_password": SecretStr("a long password")}
    )
    monkeypatch.setattr(service.workspace, "settings", closed)
    known = [Release("sha256:" + "0" * 64, {"verdict": "better"}, 0.0)]
    monkeypatch.setattr(service.workspace.registry, "list", lambda: known)
    guest = TestClient(api_alone(service), base_url="http://localhost")
    assert guest.get("/chat/boot").json()["releases"] == []
