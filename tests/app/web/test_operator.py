"""Access to the console, and the limit on guessing its password."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from app.service import Service
from app.settings import Settings, load_settings, session_secret
from app.web.auth.throttle import network_of
from engine.errors import InvalidInput
from engine.home import Home
from tests.app.conftest import listening

PASSWORD = "correct horse battery"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"operator_password": load_password()})


@pytest.fixture
def console(service: Service) -> Iterator[Callable[..., httpx.Response]]:
    with listening(service) as url:
        yield lambda path="config", **how: httpx.get(f"{url}/console/{path}", **how)


def load_password() -> object:
    return load_settings(operator_password=PASSWORD).operator_password


def test_the_console_opens_for_the_password_alone(console: Callable[..., httpx.Response]) -> None:
    assert console().status_code == 401
    assert console().headers["www-authenticate"] == "Basic"
    assert console(auth=("", "")).status_code == 401
    assert console(auth=("anyone", PASSWORD)).status_code == 200
    for path in ("compare", "comparisons", "comparisons/texts", "drafts", "drafts/waiting"):
        assert console(path).status_code == 401
        assert console(path).headers["www-authenticate"] == "Basic"
        assert console(path, auth=("anyone", PASSWORD)).status_code == 200


def test_after_ten_wrong_passwords_a_minute_even_the_right_one_waits(
    console: Callable[..., httpx.Response],
) -> None:
    assert [console(auth=("x", f"wrong {n}")).status_code for n in range(12)] == [401] * 10 + [
        429
    ] * 2
    refused = console(auth=("x", PASSWORD))
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "60"


def test_no_header_of_the_guesser_makes_another_address(
    console: Callable[..., httpx.Response],
) -> None:
    for n in range(10):
        headers = {"x-forwarded-for": f"10.0.0.{n}", "forwarded": f"for=10.0.0.{n}"}
        assert console(auth=("x", f"wrong {n}"), headers=headers).status_code == 401
    assert console(auth=("x", PASSWORD), headers={"x-forwarded-for": "10.1.1.1"}).status_code == 429


def test_a_guesser_has_one_try_of_its_ipv6_network() -> None:
    one, same, other = map(network_of, ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:1::1"))
    assert one == same != other
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


def test_a_password_that_browsers_send_differently_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="must be ASCII"):
        load_settings(home=settings.home, operator_password="пароль длинный")


@pytest.mark.parametrize("password", ["", "short", "eleven char"])
def test_a_short_password_is_refused_at_start(
    password: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURNISH_OPERATOR_PASSWORD", password)
    with pytest.raises(InvalidInput, match=r"operator_password.*at least 12"):
        load_settings(home=settings.home, host="0.0.0.0")


@pytest.mark.parametrize("key", ["", "short", "0" * 63])
def test_a_short_session_key_signs_nothing(key: str, settings: Settings) -> None:
    (settings.home / "session.key").write_text(key)
    with pytest.raises(InvalidInput, match=r"session\.key is damaged"):
        session_secret(Home(settings.home))
