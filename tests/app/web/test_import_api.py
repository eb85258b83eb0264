"""Import of a person's conversations by HTTP: what comes in, what is refused, what is left over."""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from app.web.chat import import_api, unpacking
from feedback_store.storage.evidence import EvidenceReader
from tests.app.conftest import BROWSER, Played
from tests.app.web.exports import SEA, as_json, as_zip, conversation

NEW = {"conversations": 1, "added": 1, "turns": 1, "answers": 2, "set_aside": {}}


@pytest.fixture(scope="module")
def stage(api_stage: Played) -> Played:
    """No page is looked at here, and no answer on its way."""
    return api_stage


@pytest.fixture
def person(played: Played) -> Iterator[Callable[..., httpx.Client]]:
    """A new browser-like client with a cookie of its own, each time it is called."""
    clients: list[httpx.Client] = []

    def make(**headers: str) -> httpx.Client:
        clients.append(httpx.Client(base_url=played.url, timeout=60, headers=headers))
        assert clients[-1].get("/", headers=BROWSER).status_code == 200
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    assert not list((played.service.workspace.home.imports).iterdir())  # nothing is left over


def send(client: httpx.Client, data: Any) -> httpx.Response:
    return client.post("/chat/import", content=data)


def titles(client: httpx.Client) -> list[str]:
    return [row["title"] for row in client.get("/chat/conversations").json()["conversations"]]


def refused(client: httpx.Client, data: Any, status: int = 400) -> str:
    response = send(client, data)
    assert response.status_code == status, response.text
    assert titles(client) == []
    return str(response.json()["error"]["message"])


def test_a_conversation_comes_into_ones_own_list_with_title_day_and_answers(
    person: Callable[..., httpx.Client], played: Played
) -> None:
    ann, bob = person(), person()
    assert send(ann, as_json(conversation())).json() == NEW
    (row,) = ann.get("/chat/conversations").json()["conversations"]
    assert (row["title"], row["at"]) == ("The sea", SEA)
    (turn,) = ann.get(f"/chat/conversations/{row['id']}").json()["turns"]
    assert (turn["question"], len(turn["answers"])) == ("What is the sea?", 2)
    assert turn["answer"]["id"] == turn["answers"][0]  # it was left at the first one
    assert titles(bob) == []
    assert bob.get(f"/chat/conversations/{row['id']}").status_code == 404
    assert list(EvidenceReader(played.service.workspace.database).all()) == []


def test_the_same_file_again_stores_nothing_twice(person: Callable[..., httpx.Client]) -> None:
    ann, more = person(), conversation("c-2", "The moon")
    send(ann, as_json(conversation()))
    assert send(ann, as_json(conversation())).json() == {**NEW, "added": 0}
    assert send(ann, as_json(conversation(), more)).json()["added"] == 1
    assert sorted(titles(ann)) == ["The moon", "The sea"]


def test_a_zip_is_opened_whether_its_conversations_are_one_file_or_several(
    person: Callable[..., httpx.Client],
) -> None:
    first, second = as_json(conversation()), as_json(conversation("c-2", "The moon"))
    other = {"user.json": b"{}", "__MACOSX/conversations.json": b"?", "chat.html": b"<p>"}
    for members in (
        {"export/conversations.json": as_json(conversation(), conversation("c-2", "The moon"))},
        {"conversations-000.json": first, "conversations-001.json": second},
    ):
        ann = person()
        report = send(ann, as_zip({**other, **members})).json()
        assert report == {**NEW, "conversations": 2, "added": 2, "turns": 2, "answers": 4}
        assert sorted(titles(ann)) == ["The moon", "The sea"]


def test_what_is_left_out_is_counted_in_the_persons_language(
    person: Callable[..., httpx.Client],
) -> None:
    silent = {**conversation("c-2"), "mapping": {}}
    data = as_json(conversation(), silent)
    assert send(person(), data).json()["set_aside"] == {
        "a conversation without an answer in words": 1
    }
    chinese = person(**{"accept-language": "zh"})
    assert send(chinese, data).json()["set_aside"] == {"没有文字回答的对话": 1}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no records"),
        (b"Nonsense", "this file cannot be imported: .* is not JSON"),
        (b'[{"instruction": "a", "output": "b"}]', "known formats: chatgpt, open-webui-chats"),
        (as_json({**conversation(), "mapping": 7}), "'mapping' must be an object"),
        (as_zip({"photo.json": b"[]"}), "the zip file has no conversations.json in it"),
        (as_zip({"conversations.json": as_json(conversation())})[:-30], "is damaged"),
        (b"PK\x03\x04" + b"x" * 100, "is damaged"),
    ],
    ids=["empty", "no JSON", "training data", "broken", "other zip", "cut off", "no zip"],
)
def test_a_file_that_is_no_export_is_refused_with_a_sentence(
    person: Callable[..., httpx.Client], data: bytes, said: str
) -> None:
    assert re.search(said, refused(person(), data))


def test_a_refusal_is_in_the_persons_language(person: Callable[..., httpx.Client]) -> None:
    chinese = person(**{"accept-language": "zh"})
    assert refused(chinese, b"[]") == "无法导入此文件：conversations.json 中没有记录"
    assert refused(chinese, as_zip({})) == "zip 文件中没有 conversations.json"


def test_a_zip_bomb_is_refused_however_it_is_made(
    person: Callable[..., httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = as_zip({"conversations.json": b" " * 1_000_001})
    monkeypatch.setattr(unpacking, "MAX_UNPACKED_BYTES", 1_000_000)
    assert "more than 1000000 bytes unpacked" in refused(person(), bomb)
    end = bomb.rindex(b"PK\x05\x06")
    crowded = bomb[:end] + bomb[end : end + 12] + struct.pack("<L", 2**25) + bomb[end + 16 :]
    assert "too many files" in refused(person(), crowded)
    zip64 = bomb[:end] + b"PK\x06\x07" + b"\0" * 16 + bomb[end:]
    assert "too many files" in refused(person(), zip64)


def test_the_import_has_a_limit_of_its_own_and_the_other_routes_keep_theirs(
    person: Callable[..., httpx.Client],
) -> None:
    ann = person()
    declared = HTTPConnection(ann.base_url.host, ann.base_url.port)
    declared.putrequest("POST", "/chat/import")
    declared.putheader("Content-Length", str(import_api.MAX_IMPORT_BYTES + 1))
    declared.endheaders()
    assert declared.getresponse().status == 413
    declared.close()
    five_megabytes = as_json(conversation()) + b" " * 5 * 2**20
    assert ann.post("/chat/questions", content=five_megabytes).status_code == 413
    assert send(ann, five_megabytes).json() == NEW


def test_one_person_imports_one_file_at_a_time(person: Callable[..., httpx.Client]) -> None:
    ann, bob = person(), person()
    status: list[int] = []

    def slowly() -> Iterator[bytes]:
        yield as_json(conversation())[:1]
        second = httpx.Client(base_url=ann.base_url, cookies=ann.cookies, timeout=60)
        with second:
            response = send(second, as_json(conversation()))
            while response.status_code == 200:  # the server has not seen the first one yet
                response = send(second, as_json(conversation()))
        status.append(response.status_code)
        assert "an import of yours is still running" in response.text
        assert send(bob, as_json(conversation())).status_code == 200
        yield as_json(conversation())[1:]

    assert send(ann, slowly()).status_code == 200
    assert status == [409]
    assert send(ann, as_json(conversation())).status_code == 200  # and now another one


def test_a_server_that_starts_removes_what_was_left_over_and_not_what_another_one_imports(
    played: Played,
) -> None:
    imports = played.service.workspace.home.imports
    left_over, running = imports / "left-over", imports / "running"
    for folder in (left_over, running):
        folder.mkdir(parents=True)
        (folder / import_api.FILE_NAME).write_text("[]")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(left_over, (two_days_ago, two_days_ago))
    import_api.import_router(played.service)
    assert list(imports.iterdir()) == [running]
    (running / import_api.FILE_NAME).unlink()
    running.rmdir()
