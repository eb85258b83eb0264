"""What anybody may send to a page or an API, and what the log says of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from itsdangerous import TimestampSigner

from app.service import Service, Workspace
from app.settings import Settings
from app.ui.exchange import Exchange, Page, vote_of
from tests.app.conftest import BROWSER
from tests.fake_engine import FakeEngine

WORDS = "canary words"
QUESTION = {"messages": [{"role": "user", "content": WORDS}], "max_tokens": 2}


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: FakeEngine())
    service = Service(Workspace(settings))
    service.start()
    yield service
    service.close()


class Tab:
    """One tab of the chat page, driven as a program would."""

    def __init__(self, url: str, name: str = "tab-1") -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self._client.get("/", headers=BROWSER)
        self._name = name
        handlers = self._client.get("/config").json()["dependencies"]
        self.numbers = {each["api_name"]: each["id"] for each in handlers}

    def post(self, number: int, data: list[Any], **event: Any) -> httpx.Response:
        body = {"fn_index": number, "data": data, "session_hash": self._name, **event}
        return self._client.post("/gradio_api/queue/join", json=body)

    def call(self, name: str, *data: Any, **event: Any) -> dict[str, Any]:
        """The last thing that the page is told of an event."""
        assert self.post(self.numbers[name], list(data), **event).status_code == 200
        last: dict[str, Any] = {}
        with self._client.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": self._name}
        ) as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    last = message if message["msg"] == "process_completed" else last
        return last


Said = Callable[[], str]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Said:
    """All that the server's log and its standard streams say."""

    def read() -> str:
        time.sleep(0.1)
        return "".join(capfd.readouterr()) + caplog.text

    return read


def test_a_question_of_null_is_refused_and_the_tab_goes_on(url: str, said: Said) -> None:
    tab = Tab(url)
    assert tab.call("ask", None, "plain", None)["success"]
    assert tab.call("ask", WORDS, "plain", None)["success"]
    assert "Traceback" not in said()


def test_an_event_that_is_none_is_refused_without_a_traceback(url: str, said: Said) -> None:
    tab = Tab(url)
    for number in (-1, 10**6):
        response = tab.post(number, [WORDS])
        assert response.status_code == 404
    assert "Traceback" not in said()


def test_an_event_with_wrong_values_leaves_no_words_in_the_log(url: str, said: Said) -> None:
    assert not Tab(url).call("ask", WORDS)["success"]
    log = said()
    assert "a page's handler has failed" in log
    assert WORDS not in log


def test_a_failure_of_the_database_leaves_no_words_in_the_log(
    url: str, service: Service, said: Said
) -> None:
    with service.workspace.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON turns"
            " BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        )
    assert httpx.post(f"{url}/v1/chat/completions", json=QUESTION).status_code == 500
    assert not Tab(url).call("ask", WORDS, "plain", None)["success"]
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


@pytest.mark.parametrize("index", [-1, -3, 4, None, [0, 1], "0", 0.5])
def test_a_thumb_on_no_entry_is_a_thumb_on_no_answer(index: object) -> None:
    page = Page(exchanges=[Exchange("Q1", "a1", answer="A1"), Exchange("Q2", "a2", answer="A2")])
    assert page.exchange_at(index) is None
    assert [page.exchange_at(each) for each in range(4)] == [
        page.exchanges[i] for i in (0, 0, 1, 1)
    ]


@pytest.mark.parametrize(("liked", "vote"), [(True, 1), (False, -1), ("", 0), ([], 0), (None, 0)])
def test_a_thumb_that_is_none_is_no_vote(liked: object, vote: int) -> None:
    assert vote_of(liked) == vote
