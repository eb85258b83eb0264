"""Identity of requests: the one layer in front of every route, gradio's included.

It finds the person behind a request and whether they may use its path; routes ask `user_of` or
`person_of` and know nothing else. There are three ways to be somebody:

- an API key, in `Authorization: Bearer` or `x-api-key`;
- where there are accounts, a cookie with the token of a log-in, or a header of a trusted proxy;
- where there are none, a cookie with a random id, one per browser, and else one person for all
  programs. Whoever reaches such a server is its operator, unless the console has a password.

No addresses, no names. Knows headers and the rules of `access`; knows no password's hash.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.settings import Settings
from app.texts import error_text, language_for
from app.web.auth.access import Need, need_of
from app.web.auth.operator import ConsolePassword
from app.web.auth.origins import route_path
from app.web.auth.proxies import TrustedProxies
from app.web.auth.signed_session import SignedSession
from app.web.auth.throttle import RequestRates
from app.web.error_responses import burnish_error_response, http_error_response
from engine.errors import BurnishError, InvalidInput
from feedback_store.accounts.accounts import Accounts
from feedback_store.accounts.keys import KEY_PREFIX
from feedback_store.accounts.person import Person

API_USER = "api"
CONSOLE = "console"  # who acts there, where nobody has an account
LOGIN_PATH = "/account/login"
TOKEN = "login"  # noqa: S105 - its name in the cookie
SIGN_IN = "sign in (reload the page), or send an API key that works"
MAX_THREADS_ASKING = 4  # a look at the database takes a fraction of a millisecond
FindPerson = Callable[[Scope, Need], Awaitable[Person | None]]


class Identity:
    """ASGI middleware that sets the person of each request, or refuses it."""

    def __init__(
        self, app: ASGIApp, accounts: Accounts, settings: Settings, secret_key: str
    ) -> None:
        self._app = app
        self._accounts = accounts
        self._has_accounts = settings.has_accounts
        password = settings.operator_password
        self._password = None if password is None else ConsolePassword(password)
        self._proxies = TrustedProxies(settings.trusted_proxies, settings.user_header)
        self._rates = RequestRates(settings.rate_limit) if settings.has_accounts else None
        self._threads = CapacityLimiter(MAX_THREADS_ASKING)
        self._with_cookie = SignedSession(
            self._by_cookie, secret_key, settings.path_prefix or "/", settings.secure_cookie
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        find = self._finder_without_cookie(scope)
        if find is None:
            await self._with_cookie(scope, receive, send)
            return
        scope["session"] = {}  # a cookie that came along is neither read nor written
        await self._admit(find, scope, receive, send)

    async def _by_cookie(self, scope: Scope, receive: Receive, send: Send) -> None:
        find = self._member if self._has_accounts else self._guest
        await self._admit(find, scope, receive, send)

    def _finder_without_cookie(self, scope: Scope) -> FindPerson | None:
        if _key_of(scope, any_bearer=self._has_accounts):
            return self._key_holder
        return self._vouched_for if self._has_accounts and self._proxies.user_of(scope) else None

    async def _key_holder(self, scope: Scope, _need: Need) -> Person | None:
        """Return whose API key came with the request."""
        key = _key_of(scope, any_bearer=self._has_accounts) or ""
        person = await run_sync(self._accounts.keys.person, key, limiter=self._threads)
        return _with_session(scope, person)

    async def _vouched_for(self, scope: Scope, _need: Need) -> Person | None:
        """Return whom a trusted proxy names."""
        name = self._proxies.user_of(scope) or ""
        find = partial(self._accounts.vouched_for, f"proxy|{name}", name)
        return _with_session(scope, await run_sync(find, limiter=self._threads))

    async def _guest(self, scope: Scope, need: Need) -> Person:
        """Return the person of a browser or, without a cookie, of all programs."""
        session = scope["session"]
        if _wants_page(scope):
            session.setdefault("user", new_user())
        is_operator = self._password is None or (
            need.role != "user" and await self._password.check(scope)
        )
        return Person(user_of(session), "operator" if is_operator else "user")

    async def _member(self, scope: Scope, need: Need) -> Person | None:
        """Return the person who is signed in, if there is one; a log-in that is over is removed."""
        session = scope["session"]
        if TOKEN not in session or (need.scope is None and not _is_account_path(scope)):
            return None
        find = self._accounts.sessions.person
        member = await run_sync(find, str(session[TOKEN]), limiter=self._threads)
        if member is None:
            forget_login(session)
        elif session.get("user") != member.id:
            session["user"] = member.id
        return member

    async def _admit(self, find: FindPerson, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application if the person may use the path, else answer why not."""
        need = need_of(route_path(scope))
        try:
            person = scope["person"] = await find(scope, need)
            refusal = None if need.scope is None else self._refusal(scope, need, person)
        except HTTPException as error:
            refusal = await http_error_response(Request(scope), error)
        except BurnishError as error:  # the database does not answer
            refusal = await burnish_error_response(Request(scope), error)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope, need: Need, person: Person | None) -> Response | None:
        """Return a redirect to the log-in page, or None; raises an HTTPException to refuse."""
        if person is None:
            return _ask_to_sign_in(scope)
        if not need.is_met_by(person):
            said = f"this needs the role {need.role} and the scope {need.scope}"
            raise _error(scope, 403, said)
        if self._rates and (seconds := self._rates.seconds_to_wait(person)):
            wait = {"Retry-After": str(seconds)}
            raise _error(scope, 429, "too many requests: wait a minute", wait)
        return None


def _ask_to_sign_in(scope: Scope) -> Response:
    """Return a browser's redirect to the log-in page; raises 401 for a program."""
    if scope["method"] == "GET" and _wants_page(scope):
        root, path = scope.get("root_path", ""), route_path(scope)
        query = scope["query_string"].decode("latin-1")
        wanted = quote(f"{path}?{query}" if query else path, safe="/")
        return RedirectResponse(f"{root}{LOGIN_PATH}?next={wanted}", 303)
    raise _error(scope, 401, SIGN_IN, {"WWW-Authenticate": "Bearer"})


def _error(
    scope: Scope, code: int, sentence: str, headers: dict[str, str] | None = None
) -> HTTPException:
    """Return an error whose sentence is in the language of the request."""
    said = error_text(InvalidInput(sentence), language_for(Request(scope)))
    return HTTPException(code, said, headers)


def new_user() -> str:
    """Return an id for a new user."""
    return uuid.uuid4().hex


def user_of(session: MutableMapping[str, Any]) -> str:
    """Return the user of a session; callers without a cookie share the API user."""
    return str(session.get("user", API_USER))


def person_of(request: Request) -> Person:
    """Return the person behind a request to a path that is not public."""
    person = request.scope["person"]
    assert isinstance(person, Person)
    return person


def actor_id(request: Request) -> str:
    """Return who acts, for a record; nobody in particular without accounts."""
    person = person_of(request)
    return person.id if person.name else CONSOLE


def forget_login(session: MutableMapping[str, Any]) -> None:
    """Remove a log-in, and whose it was, from a session."""
    for name in (TOKEN, "user"):
        session.pop(name, None)


def _with_session(scope: Scope, person: Person | None) -> Person | None:
    """Let a request that has no cookie have the person's session all the same."""
    scope["session"] = {} if person is None else {"user": person.id}
    return person


def _key_of(scope: Scope, *, any_bearer: bool) -> str | None:
    """Return the API key of a request.

    Clients of OpenAI's API always send one. Where there are no accounts, only what looks like a key
    of this server is one; anything else is ignored.
    """
    headers = Headers(scope=scope)
    kind, _, credentials = headers.get("authorization", "").partition(" ")
    bearer = credentials.strip() if kind.lower() == "bearer" else ""
    for secret in (headers.get("x-api-key", "").strip(), bearer):
        if secret and (any_bearer or secret.startswith(KEY_PREFIX)):
            return secret
    return None


def _is_account_path(scope: Scope) -> bool:
    return route_path(scope).startswith("/account/")


def _wants_page(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
