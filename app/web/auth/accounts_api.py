"""The routes of the account's pages: sign in and out, join by a link, sessions, keys, password.

The forms need no tokens against cross-site requests: one that another site's page makes never gets
here (`origins`). Knows requests and limits; the HTML is `account_pages`'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import parse_qs

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.html.account_pages import AccountPages
from app.texts import error_text, language_for, say
from app.web.auth.identity import LOGIN_PATH, TOKEN, forget_login, person_of
from app.web.auth.provider import WANTED, Provider
from app.web.auth.proxies import TrustedProxies
from app.web.auth.throttle import LoginThrottle
from app.workspace import Workspace
from engine.errors import BurnishError, InvalidInput, UnknownId
from feedback_store.accounts.accounts import Account, Accounts, folded_name
from feedback_store.accounts.person import Person
from feedback_store.privacy.adoption import adopt, adoptable_conversations

HASHES_AT_A_TIME = 2  # each takes 64 MiB and a core
FORMER_USER = "before"  # in the cookie: whose words and documents this browser had before
Form = dict[str, list[str]]


def accounts_router(workspace: Workspace) -> APIRouter:
    """Return the routes, on one workspace."""
    router = APIRouter(prefix="/account", include_in_schema=False)
    adoption = _Adoption(workspace)
    doors = _Doors(workspace, adoption)
    _add_doors(router, doors, workspace.accounts)
    if workspace.settings.oidc_issuer:
        _add_provider(router, doors, Provider(workspace.settings), workspace.accounts)
    _add_adoption(router, adoption)
    _add_sessions(router, workspace.accounts)
    _add_password(router, doors, workspace.accounts)
    _add_keys(router, workspace.accounts)
    return router


@dataclass(frozen=True, slots=True)
class _Adoption:
    """Counts what a browser's person has, and gives it to an account."""

    workspace: Workspace

    def count(self, user_id: str) -> tuple[int, int]:
        """Return the numbers of conversations and documents, none if it is an account already."""
        if self.workspace.accounts.data(user_id):
            return 0, 0
        conversations = adoptable_conversations(self.workspace.database, user_id)
        return conversations, len(self.workspace.documents.documents(user_id))

    def keep(self, user_id: str, account_id: str) -> None:
        """Give everything to an account; what a crash leaves is asked about again."""
        self.workspace.documents.move(user_id, account_id)
        adopt(self.workspace.database, user_id, account_id)


class _Doors:
    """Checks passwords, a few at a time and not too often, and lets people in."""

    def __init__(self, workspace: Workspace, adoption: _Adoption) -> None:
        self._accounts = workspace.accounts
        self._adoption = adoption
        self._has_provider = workspace.settings.oidc_issuer is not None
        self._throttle = LoginThrottle()
        self._proxies = TrustedProxies(workspace.settings.trusted_proxies, None)
        self.limiter = CapacityLimiter(HASHES_AT_A_TIME)

    def page(self, request: Request, wanted: str, **said: str) -> str:
        """Return the log-in page."""
        return _pages(request).sign_in(wanted, has_provider=self._has_provider, **said)

    async def check(self, name: str, password: str, request: Request) -> Account | None:
        """Return the account that a password proves, or None; raises `InvalidInput` if it must not
        be looked at now."""
        address = self._proxies.client_of(request.scope)
        work = partial(self._check, folded_name(name), password, address)
        if self._throttle.is_blocked(folded_name(name), address):
            return work()  # refused without a hash, so that nobody waits behind a guesser
        return await run_sync(work, limiter=self.limiter)

    def _check(self, name: str, password: str, address: str) -> Account | None:
        if self._throttle.is_blocked(name, address):
            raise _Blocked("too many wrong passwords: wait a minute, and longer after a hundred")
        account = self._accounts.check_password(name, password)
        if account is None:
            self._throttle.count_wrong(name, address)
        return account

    async def let_in(self, account_id: str, request: Request, wanted: str) -> Response:
        """Sign an account in with a new session; returns the redirect to what was wanted."""
        session = request.session
        before = session.get("user") if TOKEN not in session else None
        if before in (None, account_id):
            before = session.get(FORMER_USER)
        token = await run_sync(self._accounts.sessions.begin, account_id)
        session.clear()
        session.update({"user": account_id, TOKEN: token})
        if before and any(await run_sync(self._adoption.count, str(before))):
            session[FORMER_USER] = before
            return _redirect(request, "/account/adopt")
        return _redirect(request, _own_path(wanted))


class _Blocked(InvalidInput):
    """Too many wrong passwords."""


def _add_doors(router: APIRouter, doors: _Doors, accounts: Accounts) -> None:
    """Add the routes of those who are not signed in."""

    @router.get("/login")
    async def sign_in_page(request: Request, next: str = "/") -> Response:  # noqa: A002
        if request.scope["person"] is not None:
            return _redirect(request, _own_path(next))
        return HTMLResponse(doors.page(request, next))

    @router.post("/login")
    async def sign_in(request: Request) -> Response:
        form = await _form(request)
        name, wanted = _value(form, "name"), _value(form, "next")
        try:
            account = await doors.check(name, _value(form, "password"), request)
        except _Blocked as error:
            page = doors.page(request, wanted, name=name, problem=_said(error, request))
            return HTMLResponse(page, 429, {"Retry-After": "60"})
        if account is None:
            problem = say("account.wrong", language_for(request))
            page = doors.page(request, wanted, name=name, problem=problem)
            return HTMLResponse(page, 401)
        return await doors.let_in(account.id, request, wanted)

    @router.get("/link")
    async def link_page(request: Request, token: str = "") -> Response:
        try:
            link = await run_sync(accounts.link, token)
        except UnknownId as error:
            return HTMLResponse(_pages(request).refused(_said(error, request)), 404)
        return HTMLResponse(_pages(request).use_link(link, token))

    @router.post("/link")
    async def use_link(request: Request) -> Response:
        form = await _form(request)
        token, name, password = (_value(form, each) for each in ("token", "name", "password"))
        try:
            link = await run_sync(accounts.link, token)
        except UnknownId as error:
            return HTMLResponse(_pages(request).refused(_said(error, request)), 404)
        try:
            _require_same(form, request)
            use: Callable[[], Account] = (
                partial(accounts.reset_password, token, password)
                if link.role is None
                else partial(accounts.join, token, name, password)
            )
            account = await run_sync(use, limiter=doors.limiter)
        except BurnishError as error:
            problem = _said(error, request)
            page = _pages(request).use_link(link, token, name=name, problem=problem)
            return HTMLResponse(page, 400)
        act = "join" if link.role else "reset"
        await run_sync(accounts.audit.record, account.id, act, account.id)
        return await doors.let_in(account.id, request, "/")


def _add_provider(router: APIRouter, doors: _Doors, provider: Provider, accounts: Accounts) -> None:
    """Add the routes to the provider and back from it."""

    def refused(error: BurnishError, request: Request) -> Response:
        return HTMLResponse(doors.page(request, "/", problem=_said(error, request)), 403)

    @router.get("/provider")
    async def leave(request: Request, next: str = "/") -> Response:  # noqa: A002
        try:
            return await provider.redirect(request, _own_path(next))
        except InvalidInput as error:
            return refused(error, request)

    @router.get("/callback")
    async def come_back(request: Request) -> Response:
        try:
            found = await provider.identify(request)
            person = await run_sync(accounts.vouched_for, found.origin, found.name)
            if person is None:
                raise InvalidInput("this account is disabled; ask an operator")
        except BurnishError as error:
            return refused(error, request)
        return await doors.let_in(person.id, request, str(request.session.get(WANTED, "/")))


def _add_adoption(router: APIRouter, adoption: _Adoption) -> None:
    """Add the question what becomes of the conversations and documents that this browser had."""

    @router.get("/adopt")
    def question(request: Request) -> Response:
        before = request.session.get(FORMER_USER)
        conversations, documents = adoption.count(str(before)) if before else (0, 0)
        if not conversations and not documents:
            return _redirect(request, "/")
        return HTMLResponse(_pages(request).adopt(conversations, documents))

    @router.post("/adopt")
    async def answer(request: Request) -> Response:
        keep = _value(await _form(request), "keep") == "yes"
        before = request.session.get(FORMER_USER)
        if keep and before:
            await run_sync(adoption.keep, str(before), person_of(request).id)
        request.session.pop(FORMER_USER, None)
        return _redirect(request, "/")


def _add_sessions(router: APIRouter, accounts: Accounts) -> None:
    """Add the page of a person's own account, and the routes that end sessions."""

    @router.get("")
    async def own(request: Request) -> Response:
        return HTMLResponse(await _account_page(accounts, request))

    @router.post("/logout")
    def sign_out(request: Request) -> Response:
        person = person_of(request)
        if person.session_id is not None:  # none where a proxy vouches for each request
            accounts.sessions.end(person.session_id, person.id)
        forget_login(request.session)
        return _redirect(request, LOGIN_PATH)

    @router.post("/sessions/end")
    def end_others(request: Request) -> Response:
        person = person_of(request)
        accounts.sessions.end_all(person.id, but=person.session_id)
        return _redirect(request, "/account")

    @router.post("/sessions/{session_id}/end")
    def end(session_id: str, request: Request) -> Response:
        accounts.sessions.end(session_id, person_of(request).id)
        return _redirect(request, "/account")


def _add_password(router: APIRouter, doors: _Doors, accounts: Accounts) -> None:
    """Add the route that changes a person's own password."""

    @router.post("/password")
    async def change_password(request: Request) -> Response:
        form, person = await _form(request), person_of(request)
        new = partial(accounts.change_password, person.id, session_id=person.session_id)
        try:
            _require_same(form, request)
            if await doors.check(str(person.name), _value(form, "old"), request) is None:
                raise InvalidInput(say("account.wrong_old", language_for(request)))
            await run_sync(new, _value(form, "password"), limiter=doors.limiter)
        except InvalidInput as error:
            page = await _account_page(accounts, request, problem=_said(error, request))
            return HTMLResponse(page, 429 if isinstance(error, _Blocked) else 400)
        done = say("account.password_changed", language_for(request))
        return HTMLResponse(await _account_page(accounts, request, done=done))


def _add_keys(router: APIRouter, accounts: Accounts) -> None:
    """Add the routes that create and revoke a person's own keys."""

    @router.post("/keys")
    async def create_key(request: Request) -> Response:
        form, person = await _form(request), person_of(request)
        scopes, label = form.get("scope", []), _value(form, "label")
        try:
            key, secret = await run_sync(accounts.keys.create, person.id, scopes, label)
        except InvalidInput as error:
            page = await _account_page(accounts, request, problem=_said(error, request))
            return HTMLResponse(page, 400)
        await run_sync(_audit_of_operators, accounts, person, "create key", key.id)
        return HTMLResponse(await _account_page(accounts, request, secret=secret))

    @router.post("/keys/{key_id}/revoke")
    def revoke_key(key_id: str, request: Request) -> Response:
        person = person_of(request)
        key = accounts.keys.revoke(key_id, person.id)
        _audit_of_operators(accounts, person, "revoke key", key.id)
        return _redirect(request, "/account#keys")


async def _account_page(accounts: Accounts, request: Request, **said: str) -> str:
    person = person_of(request)
    sessions = await run_sync(accounts.sessions.of, person.id)
    keys = await run_sync(accounts.keys.of, person.id)
    return _pages(request).account(person, sessions, keys, **said)


def _audit_of_operators(accounts: Accounts, person: Person, action: str, key_id: str) -> None:
    if person.is_at_least("operator"):
        accounts.audit.record(person.id, action, key_id)


def _require_same(form: Form, request: Request) -> None:
    """Raise `InvalidInput` unless the new password was typed twice alike."""
    if _value(form, "password") != _value(form, "again"):
        raise InvalidInput(say("account.differ", language_for(request)))


def _pages(request: Request) -> AccountPages:
    return AccountPages(language_for(request), str(request.scope.get("root_path", "")))


def _said(error: BurnishError, request: Request) -> str:
    return error_text(error, language_for(request))


async def _form(request: Request) -> Form:
    """Return the fields of a form as browsers send it; bytes that are not UTF-8 are replaced."""
    body = (await request.body()).decode(errors="replace")
    return parse_qs(body, keep_blank_values=True, max_num_fields=20)


def _value(form: Form, name: str) -> str:
    return form.get(name, [""])[0]


def _redirect(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", 303)


def _own_path(wanted: str) -> str:
    """Return a path of this server, whatever was asked for: a link must lead nowhere else."""
    is_own = (
        wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    )
    return wanted if is_own else "/"
