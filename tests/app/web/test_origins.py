"""Allowed hosts and origins on every kind of route, and the security headers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from app.settings import load_settings
from app.web.auth.origins import AllowedHosts, CrossOriginProtection
from tests.app.conftest import Shared

ROUTES = (
    ("GET", "/healthz"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/api/answers/unknown/vote"),
    ("PUT", "/api/consent"),
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/page/main.js"),
    ("GET", "/chat/boot"),
    ("GET", "/chat/conversations"),
    ("POST", "/chat/questions"),
    ("POST", "/chat/answers/unknown/stop"),
    ("DELETE", "/chat/conversations/unknown"),
    ("POST", "/gradio_api/queue/join"),
    ("GET", "/gradio_api/queue/data?session_hash=x"),
    ("POST", "/gradio_api/run/predict"),
    ("GET", "/account"),
    ("POST", "/account/login"),
    ("POST", "/account/keys"),
    ("GET", "/console/"),
    ("POST", "/console/gradio_api/queue/join"),
    ("GET", "/no/such/page"),
)
FOREIGN = (
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:1"},  # another port of this machine
    {"origin": "null"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
)
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
KIND = {"accept": "text/html"}


@pytest.fixture(scope="module")
def url(shared: Shared) -> str:
    return shared.url


@pytest.mark.integration
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_answers_under_a_foreign_name_or_to_a_foreign_page(
    url: str, method: str, path: str
) -> None:
    with httpx.Client(base_url=url) as client:
        for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", ""):
            refused = client.request(method, path, headers={"host": host})
            assert (refused.status_code, host) == (400, host)
            assert "set-cookie" not in refused.headers
        for headers in FOREIGN:
            refused = client.request(method, path, headers=headers)
            assert (refused.status_code, headers) == (403, headers)
            assert "access-control-allow-origin" not in refused.headers
        preflight = {
            "origin": "http://evil.example",
            "access-control-request-method": method,
            "access-control-request-headers": "content-type",
        }
        asked = client.options(path, headers=preflight)
        assert asked.status_code >= 400
        assert "access-control-allow-origin" not in asked.headers


def test_programs_own_pages_and_links_are_let_in(url: str) -> None:
    own = [{}, {"origin": url}, {"sec-fetch-site": "same-origin", "origin": url}]
    with httpx.Client(base_url=url) as client:
        for headers in [*own, {"sec-fetch-site": "none"}, {**LINK, **KIND}]:
            assert client.get("/", headers=headers).status_code == 200, headers
        assert client.get("/console/", headers=LINK).status_code == 200
        for headers in own:
            allowed = {"allowed": True}
            assert client.put("/api/consent", json=allowed, headers=headers).status_code == 200
        # What follows a link reads; a form that leads here from elsewhere would write
        assert client.put("/api/consent", json={"allowed": False}, headers=LINK).status_code == 403
        assert client.get("/api/consent").json() == {"allowed": True}


@pytest.mark.parametrize(
    ("hosts", "known"),
    [
        (["localhost"], True),
        (["LOCALHOST:80"], True),
        (["127.0.0.1:7860"], True),
        (["[::1]:7860"], True),
        (["192.168.1.5"], True),
        (["chat.example"], True),
        (["chat.example.:443"], True),
        (["other.example"], False),
        (["localhost.example"], False),
        (["1.2.3.4.example"], False),
        (["chat.example", "localhost"], False),
        ([], False),
        (["[::1"], False),
        (["a@localhost"], True),
        (["localhost@evil.example"], False),
    ],
)
def test_names_of_the_server(hosts: list[str], known: bool) -> None:
    async def app(*_: object) -> None: ...

    assert AllowedHosts(app, ["chat.example"])._is_known(hosts) is known


@pytest.mark.parametrize(
    "path", ["/", "/page/main.js", "/console/", "/docs", "/nothing", "/v1/models", "/healthz"]
)
def test_every_response_keeps_pages_from_loading_and_framing(url: str, path: str) -> None:
    headers = httpx.get(f"{url}{path}").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["form-action"] == "'self'"
    assert policy["base-uri"] == policy["object-src"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe-inline" not in policy["script-src"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-dns-prefetch-control"] == "off"
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_a_nonce_is_used_once(url: str) -> None:
    first, second = (httpx.get(url).headers["content-security-policy"] for _ in range(2))
    assert "nonce-" in first
    assert first != second


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/chat/completions", True),
        ("/api/consent", True),
        ("/config", False),
        ("/chat/questions", False),
        ("/chat/conversations", False),
        ("/console/gradio_api/queue/join", False),
        ("/v1", False),
        ("/healthz", False),
    ],
)
def test_a_listed_origin_may_use_the_api_and_no_page(path: str, allowed: bool) -> None:
    async def app(*_: object) -> None: ...

    protection = CrossOriginProtection(app, ["https://notes.example"])
    headers = [(b"origin", b"https://notes.example"), (b"sec-fetch-site", b"cross-site")]
    scope = {"type": "http", "method": "POST", "path": f"/b{path}", "root_path": "/b"}
    assert protection._is_foreign({**scope, "headers": headers}) is not allowed


def test_an_unexpected_error_has_the_headers_and_the_documented_form(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("with somebody's words")

    monkeypatch.setattr(shared.service.workspace.store, "counts", fail)
    failed = httpx.get(f"{shared.url}/metrics")
    assert failed.status_code == 500
    assert failed.json()["error"]["message"] == "the server failed; its log says where"
    assert "content-security-policy" in failed.headers


def test_settings_list_what_else_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_ALLOWED_HOSTS", "chat.example, burnish")
    settings = load_settings(home=tmp_path, allowed_origins=("https://notes.example",))
    assert settings.allowed_hosts == ("chat.example", "burnish")
    assert settings.allowed_origins == ("https://notes.example",)
