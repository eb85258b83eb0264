"""A home without accounts gets some: what a browser had before becomes its account's on a yes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.service import Service
from app.settings import Settings
from app.web.chat.documents_api import DOCUMENTS_PATH
from app.workspace import Workspace
from tests.app.conftest import BROWSER, api_alone, listening
from tests.app.web.test_identity import PASSWORD, account_of, signed_in
from tests.support.documents import read_in_this_process
from tests.support.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.usefixtures("quick_passwords")
EVERY_ANIMAL = "When do zebras graze, otters swim and owls hunt?"
Browsers = Callable[..., httpx.Client]


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home whose servers have an engine that says nothing, and read files themselves."""
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
    with read_in_this_process():
        yield settings


@contextmanager
def serving(home: Settings, *, accounts: bool) -> Iterator[tuple[Service, Browsers]]:
    """A server of the home, and a function that opens a browser with some cookies."""
    service = Service(Workspace(home.model_copy(update={"accounts": accounts})))
    with listening(service, api_alone(service)) as url:
        opened: list[httpx.Client] = []

        def browser(cookies: dict[str, str] | None = None) -> httpx.Client:
            opened.append(httpx.Client(base_url=url, cookies=cookies, headers=BROWSER, timeout=60))
            return opened[-1]

        yield service, browser
        for each in opened:
            each.close()
    service.close()


def put_in_zoo(client: httpx.Client, text: str, name: str = "a.txt") -> None:
    named = {"collection": "Zoo", "name": name}
    assert client.post(DOCUMENTS_PATH, params=named, content=text).status_code == 200


def documents_of(client: httpx.Client) -> list[str]:
    """The names of a person's documents."""
    return [each["name"] for each in client.get(DOCUMENTS_PATH).json()["own"]]


def found_in_zoo(client: httpx.Client, question: str = EVERY_ANIMAL) -> set[str]:
    """The passages that a search finds."""
    asked = {"collection": "Zoo", "question": question}
    found = client.get(f"{DOCUMENTS_PATH}/search", params=asked).json()
    return {each["text"] for each in found["passages"]}


def test_a_browsers_conversations_are_kept_under_the_account_on_a_yes(home: Settings) -> None:
    """Two browsers used the home without accounts; one person says yes, the other no."""
    cookies = []
    with serving(home, accounts=False) as (_, open_browser):
        for question in ("Why is the sea salt?", "Why is the sky blue?"):
            browser = open_browser()
            browser.get("/")
            assert browser.get("/account/login").status_code == 404
            browser.post("/chat/questions", json={"question": question}).read()
            cookies.append(dict(browser.cookies))
    with serving(home, accounts=True) as (service, open_browser):
        seen = {}
        for name, cookie, keep in zip(("ann", "bob"), cookies, ("yes", "no"), strict=True):
            account_of(service.workspace.accounts, name)
            browser = open_browser(cookie)
            assert browser.get("/chat/conversations").status_code == 303
            led = browser.post("/account/login", data={"name": name, "password": PASSWORD})
            assert led.headers["location"] == "/account/adopt"
            assert "conversations: 1, documents: 0" in browser.get("/account/adopt").text
            assert browser.get("/chat/conversations").json()["conversations"] == []
            assert browser.post("/account/adopt", data={"keep": keep}).status_code == 303
            assert browser.get("/account/adopt").headers["location"] == "/"
            found = browser.get("/chat/conversations").json()["conversations"]
            seen[name] = [each["title"] for each in found]
            searched = browser.get("/chat/conversations", params={"words": "salt"}).json()
            assert len(searched["found"]) == (keep == "yes")
    assert seen == {"ann": ["Why is the sea salt?"], "bob": []}


def test_a_browsers_documents_are_kept_under_the_account_on_a_yes(home: Settings) -> None:
    """Two browsers have documents alone; one person says yes, the other no."""
    cookies = {}
    with serving(home, accounts=False) as (_, open_browser):
        for name, text in (("ann", "Zebras graze at noon."), ("bob", "Otters swim at night.")):
            browser = open_browser()
            browser.get("/")
            put_in_zoo(browser, text)
            cookies[name] = dict(browser.cookies)
    with serving(home, accounts=True) as (service, open_browser):
        led = {}
        for name in cookies:
            account_of(service.workspace.accounts, name)
            led[name] = signed_in(open_browser(cookies[name]), name)
            assert "conversations: 0, documents: 1" in led[name].get("/account/adopt").text
            assert documents_of(led[name]) == []
        put_in_zoo(led["ann"], "Owls hunt at dusk.", "b.txt")
        led["ann"].post("/account/adopt", data={"keep": "yes"})
        led["bob"].post("/account/adopt", data={"keep": "no"})
        assert documents_of(led["ann"]) == ["a.txt", "b.txt"]
        assert found_in_zoo(led["ann"]) == {"Zebras graze at noon.", "Owls hunt at dusk."}
        assert documents_of(led["bob"]) == []
        assert found_in_zoo(led["bob"]) == set()
        (first, _) = led["ann"].get(DOCUMENTS_PATH).json()["own"]
        assert led["bob"].delete(f"{DOCUMENTS_PATH}/{first['id']}").status_code == 404
        assert led["ann"].delete(f"{DOCUMENTS_PATH}/{first['id']}").status_code == 200
        assert found_in_zoo(led["ann"], "When do zebras graze?") == set()
        assert found_in_zoo(led["ann"], "When do owls hunt?") == {"Owls hunt at dusk."}


def test_what_was_adopted_is_forgotten_with_the_account(home: Settings) -> None:
    with serving(home, accounts=False) as (_, open_browser):
        browser = open_browser()
        browser.get("/")
        put_in_zoo(browser, "The canary sings.")
        cookie = dict(browser.cookies)
    with serving(home, accounts=True) as (service, open_browser):
        account_of(service.workspace.accounts, "ann")
        ann = signed_in(open_browser(cookie), "ann")
        ann.post("/account/adopt", data={"keep": "yes"})
        copy = ann.get("/chat/person/data").json()
        assert "The canary sings." in str(copy["documents"])
        service.workspace.forgetting.forget(copy["person"])
        root = service.workspace.home.documents
        left = [file.read_bytes() for file in root.rglob("*") if file.is_file()]
    assert not [content for content in left if b"canary" in content]
