"""Who asks: keys, log-ins and browsers, over the product's own server with a scripted engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from app.account_links import first_operator_link
from app.service import Service
from app.settings import Settings, load_settings
from app.web.auth.identity import SIGN_IN
from app.web.auth.proxies import TrustedProxies
from app.workspace import Workspace
from engine.errors import InvalidInput
from feedback_store.accounts.accounts import Account, Accounts
from feedback_store.accounts.person import AccountRole
from tests.app.conftest import BROWSER, api_alone, listening
from tests.support.scripted_engine import ScriptedEngine

PASSWORD = "correct horse battery"
ASK = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
Client = Callable[..., httpx.Client]


@pytest.fixture(autouse=True)
def quick(quick_passwords: None) -> None: ...


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"accounts": True})


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
    service = Service(Workspace(settings))
    service.start()
    yield service
    service.close()


@pytest.fixture
def accounts(service: Service) -> Accounts:
    return service.workspace.accounts


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    with listening(service, api_alone(service)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A new browser, each time it is called."""
    made: list[httpx.Client] = []

    def make(**headers: str) -> httpx.Client:
        made.append(httpx.Client(base_url=url, headers={**BROWSER, **headers}, timeout=60))
        return made[-1]

    yield make
    for each in made:
        each.close()


def account_of(accounts: Accounts, name: str, role: AccountRole = "user") -> Account:
    return accounts.join(accounts.invite(role), name, PASSWORD)


def signed_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Client:
    form = {"name": name, "password": password, "next": "/"}
    answer = client.post("/account/login", data=form)
    assert answer.status_code == 303, answer.text
    return client


# Signing in


def test_who_is_not_signed_in_sees_the_log_in_page_alone(client: Client) -> None:
    browser = client()
    led = browser.get("/?c=1&d=2")
    assert led.status_code == 303
    assert led.headers["location"] == "/account/login?next=/%3Fc%3D1%26d%3D2"
    page = browser.get(led.headers["location"])
    assert page.status_code == 200
    assert '<input type="hidden" name="next" value="/?c=1&amp;d=2">' in page.text
    assert "set-cookie" not in page.headers
    program = client(accept="application/json")
    refused = program.get("/v1/models")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["message"] == SIGN_IN
    for public in ("/healthz", "/readyz"):
        assert program.get(public).status_code == 200


def test_the_first_operator_joins_by_the_printed_link(
    service: Service, accounts: Accounts, settings: Settings, url: str, client: Client
) -> None:
    link = first_operator_link(accounts, settings, url)
    assert link is not None
    browser = client()
    page = browser.get(link)
    assert page.status_code == 200
    token = link.partition("token=")[2]
    assert f'name="token" value="{token}"' in page.text
    form = {"token": token, "name": "Olga", "password": PASSWORD, "again": PASSWORD}
    for wrong, code in (({"again": "another one here"}, 400), ({"name": "a b"}, 400)):
        assert browser.post("/account/link", data=form | wrong).status_code == code
    assert browser.post("/account/link", data=form).status_code == 303
    assert browser.get("/metrics").status_code == 200
    assert "olga" in browser.get("/account").text
    assert first_operator_link(accounts, settings, url) is None
    assert client().get(link).status_code == 404
    assert [e.action for e in accounts.audit.entries()] == ["join"]


def test_a_log_in_leads_where_one_wanted_and_nowhere_else(
    accounts: Accounts, client: Client
) -> None:
    account_of(accounts, "ann")
    leads = {
        "/?c=1": "/?c=1",
        "": "/",
        "//evil.example": "/",
        "/\\evil.example": "/",
        "https://evil.example/": "/",
        "/a\r\nset-cookie: x=1": "/",
    }
    for wanted, led in leads.items():
        form = {"name": "ANN ", "password": PASSWORD, "next": wanted}
        answer = client().post("/account/login", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, led)


def test_a_wrong_password_says_nothing_of_the_name(accounts: Accounts, client: Client) -> None:
    account_of(accounts, "ann")
    said = set()
    for name in ("ann", "nobody"):
        refused = client().post("/account/login", data={"name": name, "password": "wrong"})
        assert refused.status_code == 401
        said.add(re.sub(r'nonce="[^"]*"', "", refused.text.replace(f'"{name}"', "*")))
    assert len(said) == 1


def test_a_hundred_guesses_are_throttled_and_stand_in_nobody_elses_way(
    accounts: Accounts, client: Client
) -> None:
    for name in ("ann", "bob"):
        account_of(accounts, name)
    guesser = client()
    codes = [
        guesser.post("/account/login", data={"name": "ann", "password": f"guess {n}"}).status_code
        for n in range(100)
    ]
    assert codes == [401] * 10 + [429] * 90
    right = guesser.post("/account/login", data={"name": "ann", "password": PASSWORD})
    assert (right.status_code, right.headers["retry-after"]) == (429, "60")
    signed_in(client(), "bob")  # from the same address


def test_a_log_in_by_another_sites_form_is_refused(accounts: Accounts, client: Client) -> None:
    account_of(accounts, "eve")
    form = {"name": "eve", "password": PASSWORD}
    for foreign in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        refused = client().post("/account/login", data=form, headers=foreign)
        assert refused.status_code == 403
        assert "set-cookie" not in refused.headers


def test_signing_out_ends_the_session_even_for_a_copied_cookie(
    accounts: Accounts, client: Client
) -> None:
    account_of(accounts, "ann")
    browser, thief = signed_in(client(), "ann"), client()
    thief.cookies.update(browser.cookies)
    assert thief.get("/account").status_code == 200
    assert browser.post("/account/logout").status_code == 303
    assert thief.get("/account").status_code == 303
    assert thief.get("/v1/models", headers={"accept": "*/*"}).status_code == 401


def test_a_person_sees_and_ends_their_own_sessions_alone(
    accounts: Accounts, client: Client
) -> None:
    ann, bob = account_of(accounts, "ann"), account_of(accounts, "bob")
    here, there, other = (signed_in(client(), name) for name in ("ann", "ann", "bob"))
    page = here.get("/account").text
    ends = set(re.findall(r"/account/sessions/(\w{32})/end", page))
    (others,) = {session.id for session in accounts.sessions.of(bob.id)}
    assert len(accounts.sessions.of(ann.id)) == 2
    assert len(ends) == 1  # this browser's own has "sign out"
    assert others not in page
    assert here.post(f"/account/sessions/{others}/end").status_code == 404
    assert other.get("/account").status_code == 200
    assert here.post(f"/account/sessions/{ends.pop()}/end").status_code == 303
    assert there.get("/account").status_code == 303
    signed_in(there, "ann")
    assert here.post("/account/sessions/end").status_code == 303
    assert there.get("/account").status_code == 303
    assert here.get("/account").status_code == 200


def test_a_password_is_changed_by_who_knows_it(accounts: Accounts, client: Client) -> None:
    account_of(accounts, "ann")
    here, there = signed_in(client(), "ann"), signed_in(client(), "ann")
    new = {"old": PASSWORD, "password": "a new one for ann", "again": "a new one for ann"}
    for wrong in ({"old": "wrong"}, {"again": "typo"}, {"password": "short", "again": "short"}):
        assert here.post("/account/password", data=new | wrong).status_code == 400
    assert here.post("/account/password", data=new).status_code == 200
    assert there.get("/account").status_code == 303
    signed_in(there, "ann", "a new one for ann")
    for n in range(9):
        here.post("/account/password", data=new | {"old": f"guess {n}"})
    assert here.post("/account/password", data=new | {"old": "guess"}).status_code == 429


def test_a_reset_link_sets_a_password_and_ends_every_session(
    accounts: Accounts, client: Client
) -> None:
    ann = account_of(accounts, "ann")
    browser = signed_in(client(), "ann")
    form = {"token": accounts.offer_reset(ann.id), "password": "a new one for ann"}
    form["again"] = form["password"]
    elsewhere = client()
    assert elsewhere.post("/account/link", data=form).status_code == 303
    assert elsewhere.get("/account").status_code == 200
    assert browser.get("/account").status_code == 303
    assert client().post("/account/link", data=form).status_code == 404


def test_behind_a_path_prefix_every_link_has_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
    service = Service(Workspace(settings.model_copy(update={"path_prefix": "/b"})))
    account_of(service.workspace.accounts, "ann")
    with listening(service, api_alone(service)) as url, httpx.Client(base_url=url) as browser:
        led = browser.get("/?c=1", headers=BROWSER)
        assert led.headers["location"] == "/b/account/login?next=/%3Fc%3D1"
        page = browser.get("/account/login").text  # the proxy takes the prefix away
        assert set(re.findall(r'(?:href|src|action)="(/[^"]*)"', page)) == {
            "/b/page/page.css",
            "/b/page/sign_in.js",
            "/b/account/login",
        }
        form = {"name": "ann", "password": PASSWORD, "next": "/?c=1"}
        answer = browser.post("/account/login", data=form)
        assert answer.headers["location"] == "/b/?c=1"
        assert "path=/b;" in answer.headers["set-cookie"]
    service.close()


# Without accounts


def test_without_accounts_a_key_is_its_person_and_other_words_are_ignored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
    service = Service(Workspace(settings.model_copy(update={"accounts": False})))
    ann = account_of(service.workspace.accounts, "ann")
    _, secret = service.workspace.accounts.keys.create(ann.id)
    with listening(service, api_alone(service)) as url:

        def consent(**headers: str) -> httpx.Response:
            return httpx.get(f"{url}/api/consent", headers=headers)

        own = {"authorization": f"Bearer {secret}"}
        httpx.put(f"{url}/api/consent", json={"allowed": False}, headers=own)
        assert consent(**own).json() == {"allowed": False}
        for headers in ({}, {"authorization": "Bearer sk-anything"}, {"x-api-key": "none"}):
            assert consent(**headers).json() == {"allowed": True}
        assert consent(authorization=f"Bearer {secret}x").status_code == 401
    service.close()


# The person's end


def test_who_is_forgotten_has_no_account_any_more(accounts: Accounts, client: Client) -> None:
    ann = account_of(accounts, "ann")
    browser = signed_in(client(), "ann")
    data = browser.get("/chat/person/data").json()
    assert data["account"]["name"] == "ann"
    assert "digest" not in json.dumps(data["account"])
    assert browser.post("/chat/person/forget", json={}).status_code == 200
    assert accounts.list() == []
    assert accounts.sessions.of(ann.id) == []
    assert browser.get("/account").status_code == 303


# Settings


def test_on_other_addresses_there_are_accounts_whatever_the_settings_say(tmp_path: object) -> None:
    assert not load_settings(home=tmp_path).has_accounts
    assert load_settings(home=tmp_path, accounts=True).has_accounts
    assert load_settings(home=tmp_path, host="0.0.0.0").has_accounts
    named = load_settings(home=tmp_path, allowed_hosts=("a.example",), secure_cookie=True)
    assert named.public_url == "https://a.example"


# Proxies


def test_a_header_signs_in_from_a_trusted_proxy_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
    asked = {}
    for proxies in (("127.0.0.0/8",), ("192.0.2.1",)):
        changes = {"trusted_proxies": proxies, "user_header": "X-Remote-User"}
        service = Service(Workspace(settings.model_copy(update=changes)))
        with listening(service, api_alone(service)) as url:
            header = {"x-remote-user": "Ann"}
            answer = httpx.get(f"{url}/chat/boot", headers=header)
            asked[proxies] = answer.status_code, answer.json().get("account")
            assert "set-cookie" not in answer.headers
            twice = [("x-remote-user", "ann"), ("x-remote-user", "olga")]
            assert httpx.get(f"{url}/chat/boot", headers=twice).status_code == 401
            named = [account.name for account in service.workspace.accounts.list()]
            assert named == ["ann"]
            service.workspace.accounts.set_disabled(service.workspace.accounts.find("ann").id, True)
            assert httpx.get(f"{url}/chat/boot", headers=header).status_code == 401
            service.workspace.accounts.set_disabled(
                service.workspace.accounts.find("ann").id, False
            )
        service.close()
    assert asked == {("127.0.0.0/8",): (200, "ann"), ("192.0.2.1",): (401, None)}
    with pytest.raises(InvalidInput, match="anybody could send the header"):
        load_settings(home=settings.home, accounts=True, user_header="X-Remote-User")
    with pytest.raises(InvalidInput, match="trusted_proxies"):
        load_settings(home=settings.home, trusted_proxies=("proxy.example",))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),  # no proxy of ours
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "192.0.2.5, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.9, nonsense", "nonsense"),
    ],
)
def test_a_clients_address_is_the_last_that_no_proxy_of_ours_has(
    peer: str, forwarded: str | None, client: str
) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    proxies = TrustedProxies(("10.0.0.0/8",), None)
    assert proxies.client_of({"client": (peer, 1), "headers": headers}) == client
