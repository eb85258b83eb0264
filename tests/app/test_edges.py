"""Malformed requests to pages and the API, and their log records."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from itsdangerous import TimestampSigner

from tests.app.conftest import BROWSER, Played

WORDS = "canary words"
QUESTION = {"messages": [{"role": "user", "content": WORDS}], "max_tokens": 2}


@pytest.fixture
def url(stage: Played) -> str:
    return stage.url


def asked(url: str, body: Any, **headers: str) -> httpx.Response:
    """Return the server's response to a question from a new person's page."""
    with httpx.Client(base_url=url, timeout=30) as client:
        client.get("/", headers=BROWSER)
        return client.post("/chat/questions", json=body, headers=headers)


Said = Callable[[], str]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Said:
    """Return the server's log and its standard streams."""

    def read() -> str:
        time.sleep(0.1)
        return "".join(capfd.readouterr()) + caplog.text

    return read


@pytest.mark.parametrize(
    "body",
    [
        {"question": None},
        {"question": WORDS, "mode": None},
        {"question": [WORDS]},
        {"question": WORDS, "sampling": {"temperature": "hot"}},
        {"question": WORDS, "more": 1},
        {"question": WORDS, "history": [{"role": "system", "content": WORDS}]},
        WORDS,
        None,
    ],
)
def test_a_question_that_is_none_is_refused_and_leaves_no_words_in_the_log(
    url: str, said: Said, body: Any
) -> None:
    refused = asked(url, body)
    assert refused.status_code == 400
    assert WORDS not in refused.text
    log = said()
    assert WORDS not in log
    assert "Traceback" not in log


def test_an_event_that_is_none_is_refused_without_a_traceback(url: str, said: Said) -> None:
    for number in (-1, 0, 10**6):
        event = {"fn_index": number, "data": [WORDS], "session_hash": "tab"}
        response = httpx.post(f"{url}/gradio_api/queue/join", json=event)
        assert response.status_code == 404
    assert "Traceback" not in said()


def test_a_refusal_is_in_the_language_of_whoever_asks(url: str) -> None:
    assert asked(url, {"question": " "}).json()["error"]["message"] == "the message is empty"
    refused = asked(url, {"question": " "}, **{"accept-language": "zh-CN"}).json()["error"]
    assert refused["type"] == "InvalidText"
    assert re.search("[\u4e00-\u9fff]", refused["message"])


@pytest.fixture
def failing_database(stage: Played) -> Iterator[None]:
    """A database that stores no turn."""
    database = stage.service.workspace.database
    with database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON turns"
            " BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        )
    yield
    with database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse")


@pytest.mark.usefixtures("failing_database")
def test_a_failure_of_the_database_leaves_no_words_in_the_log(url: str, said: Said) -> None:
    assert httpx.post(f"{url}/v1/chat/completions", json=QUESTION).status_code == 500
    assert asked(url, {"question": WORDS}).status_code == 500
    log = said()
    assert "sqlalchemy.exc.IntegrityError" in log
    assert WORDS not in log


def test_an_identity_survives_a_clock_that_is_set_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = httpx.Client(base_url=url)
    now = int(time.time())
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _self: now + 24 * 3600)
    client.get("/", headers=BROWSER)
    mine = client.cookies["burnish_session"]
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _self: now)
    response = client.get("/", headers=BROWSER)
    assert "set-cookie" not in response.headers
    forged = {"burnish_session": "f" + mine[1:]}  # JSON in base64 begins with an e
    response = httpx.get(url, headers=BROWSER, cookies=forged)
    assert "burnish_session" in response.cookies


def test_an_address_of_a_page_that_there_is_not_shows_the_chat(url: str) -> None:
    answer = httpx.get(f"{url}/?page=nothing&c=1", headers=BROWSER)
    assert answer.status_code == 200
    assert "page/main.js" in answer.text
