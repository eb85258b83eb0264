"""Signing in with an OpenID Connect provider, and what of its answers proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from app.service import Service
from app.settings import Settings, load_settings
from app.web.auth.provider import PROVIDER_FAILED
from app.workspace import Workspace
from engine.errors import InvalidInput
from tests.app.conftest import BROWSER, api_alone, listening
from tests.app.web.test_identity import account_of
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, oidc_provider
from tests.support.scripted_engine import ScriptedEngine

LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture(autouse=True)
def quick(quick_passwords: None) -> None: ...


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with oidc_provider() as provider:
        yield provider


@pytest.fixture
def service(
    settings: Settings, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: ScriptedEngine())
    changes = {
        "accounts": True,
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
    }
    service = Service(Workspace(settings.model_copy(update=changes)))
    yield service
    service.close()


@pytest.fixture
def sign_in(service: Service) -> Iterator[Callable[..., httpx.Response]]:
    """Walk to the provider and back as a browser does; returns the last response."""
    with listening(service, api_alone(service)) as url:

        def walk(browser: httpx.Client | None = None, state: str | None = None) -> httpx.Response:
            browser = browser or httpx.Client(headers=BROWSER)
            page = browser.get(f"{url}/account/login?next=/%3Fc%3D1")
            assert 'href="/account/provider?next=/%3Fc%3D1"' in page.text
            leave = browser.get(f"{url}/account/provider?next=/%3Fc%3D1")
            assert leave.status_code == 302
            back = browser.get(leave.headers["location"]).headers["location"]
            if state is not None:
                back = str(httpx.URL(back).copy_set_param("state", state))
            answer = browser.get(back, headers=LINK)
            answer.extensions["browser"] = browser
            answer.extensions["url"] = url
            return answer

        yield walk


def test_the_provider_signs_people_in_as_one_account_each(
    sign_in: Callable[..., httpx.Response], service: Service, provider: OidcProvider
) -> None:
    answer = sign_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/?c=1")
    browser, url = answer.extensions["browser"], answer.extensions["url"]
    assert browser.get(f"{url}/chat/boot").json()["account"] == "ann"
    provider.claims["preferred_username"] = "anna"  # the same person under another name
    assert sign_in().status_code == 303
    (account,) = service.workspace.accounts.list()
    assert (account.name, account.role) == ("ann", "user")
    service.workspace.accounts.set_disabled(account.id, True)
    assert sign_in().status_code == 403


def test_nobody_takes_an_account_over_by_its_name(
    sign_in: Callable[..., httpx.Response], service: Service
) -> None:
    account_of(service.workspace.accounts, "ann", "operator")
    refused = sign_in()
    assert refused.status_code == 403
    assert "this name is taken" in refused.text


@pytest.mark.parametrize(
    "change",
    [
        {"signing_key": RSAKey.generate_key(2048), "published_key": RSAKey.generate_key(2048)},
        {"nonce": "another log-in's"},
        {"claims": {"sub": "17", "iss": "http://evil.example"}},
        {"claims": {"sub": "17", "aud": "another client"}},
        {"claims": {"sub": "17", "aud": "another client", "azp": CLIENT_ID}},
        {"claims": {"sub": "17", "exp": 1_000_000_000}},
        {"claims": {"preferred_username": "ann"}},
    ],
    ids=["key", "nonce", "issuer", "audience", "party", "expired", "nobody"],
)
def test_what_proves_nothing_signs_nobody_in(
    change: dict[str, object],
    sign_in: Callable[..., httpx.Response],
    service: Service,
    provider: OidcProvider,
) -> None:
    for name, value in change.items():
        setattr(provider, name, value)
    refused = sign_in()
    assert refused.status_code == 403
    assert PROVIDER_FAILED in refused.text
    assert service.workspace.accounts.list() == []


def test_a_log_in_that_another_browser_began_is_refused(
    sign_in: Callable[..., httpx.Response], service: Service
) -> None:
    assert sign_in(state="another").status_code == 403
    first = httpx.Client(headers=BROWSER)
    url = sign_in(first).extensions["url"]
    assert httpx.get(f"{url}/account/callback?code=x&state=y").status_code == 403
    assert httpx.get(f"{url}/account/callback").status_code == 403
    assert httpx.get(f"{url}/account/callback?error=access_denied").status_code == 403


def test_a_provider_that_does_not_answer_is_said_so(service: Service, settings: Settings) -> None:
    gone = service.workspace.settings.model_copy(update={"oidc_issuer": "http://127.0.0.1:1"})
    service.workspace.settings = gone
    with listening(service, api_alone(service)) as url:
        refused = httpx.get(f"{url}/account/provider")
        assert refused.status_code == 403
        assert PROVIDER_FAILED in refused.text


def test_an_issuer_needs_a_client(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="OIDC_CLIENT_ID"):
        load_settings(home=settings.home, oidc_issuer="https://id.example")
    with pytest.raises(InvalidInput, match="oidc_issuer"):
        load_settings(home=settings.home, oidc_issuer="id.example", oidc_client_id="x")
