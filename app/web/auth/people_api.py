"""The console's page of people and keys: its routes, for operators.

An operator does nothing here to their own account, so that nobody locks themselves out: what is
their own is on the page of their account.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.account_links import link_address
from app.html.people_page import PEOPLE_PATH, KnownPerson, PeoplePage
from app.texts import error_text, language_for
from app.web.auth.identity import actor_id, person_of
from app.workspace import Workspace
from engine.errors import BurnishError, Conflict

ACTS_SHOWN = 30
RoleField = Annotated[str, Form(max_length=20)]


def people_router(workspace: Workspace) -> APIRouter:
    """Return the routes, on one home."""
    router = APIRouter(prefix=PEOPLE_PATH, include_in_schema=False)
    accounts, audit = workspace.accounts, workspace.accounts.audit
    page = _Page(workspace)

    def done(request: Request, act: Callable[[], str], said: str) -> Response:
        """Carry out an act, which returns its subject, and record it; or show why not."""
        try:
            audit.record(actor_id(request), said, act())
        except BurnishError as error:
            return page.show(request, error=error)
        there = f"{request.scope.get('root_path', '')}{PEOPLE_PATH}"
        return RedirectResponse(there, 303)

    @router.get("")
    def people(request: Request) -> Response:
        return page.show(request)

    @router.post("/invite")
    def invite(request: Request, role: RoleField) -> Response:
        try:
            secret = accounts.invite(role)
        except BurnishError as error:
            return page.show(request, error=error)
        audit.record(actor_id(request), "invite", role)
        return page.show(request, secret=secret)

    @router.post("/keys/{key_id}/revoke")
    def revoke(key_id: str, request: Request) -> Response:
        return done(request, lambda: accounts.keys.revoke(key_id).id, "revoke key")

    @router.post("/{account_id}/reset")
    def reset(account_id: str, request: Request) -> Response:
        try:
            secret = accounts.offer_reset(another(account_id, request))
        except BurnishError as error:
            return page.show(request, error=error)
        audit.record(actor_id(request), "offer reset", account_id)
        return page.show(request, secret=secret)

    @router.post("/{account_id}/role")
    def change_role(account_id: str, request: Request, role: RoleField) -> Response:
        def act() -> str:
            accounts.set_role(another(account_id, request), role)
            return account_id

        return done(request, act, f"change role to {role[:20]}")

    @router.post("/{account_id}/sign_out")
    def sign_out(account_id: str, request: Request) -> Response:
        def act() -> str:
            accounts.sessions.end_all(accounts.get(another(account_id, request)).id)
            return account_id

        return done(request, act, "end sessions")

    def set_disabled(account_id: str, request: Request, *, disabled: bool) -> Response:
        def act() -> str:
            accounts.set_disabled(another(account_id, request), disabled)
            return account_id

        return done(request, act, "disable" if disabled else "enable")

    @router.post("/{account_id}/disable")
    def disable(account_id: str, request: Request) -> Response:
        return set_disabled(account_id, request, disabled=True)

    @router.post("/{account_id}/enable")
    def enable(account_id: str, request: Request) -> Response:
        return set_disabled(account_id, request, disabled=False)

    return router


def another(account_id: str, request: Request) -> str:
    """Return an account's id; raises `Conflict` where it is that of who asks."""
    if account_id == person_of(request).id:
        raise Conflict("this is your own account: another operator does that")
    return account_id


class _Page:
    """Reads and shows the page of one home."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def show(
        self, request: Request, *, secret: str = "", error: BurnishError | None = None
    ) -> Response:
        """Return the page; `secret` is that of a link that was just made."""
        language, root = language_for(request), str(request.scope.get("root_path", ""))
        page = PeoplePage(language, root)
        settings, accounts = self._workspace.settings, self._workspace.accounts
        if not settings.has_accounts:
            return HTMLResponse(page.without_accounts())
        keys = [key for key in accounts.keys.of() if key.revoked_at is None]
        people = [
            KnownPerson(
                account,
                accounts.sessions.of(account.id),
                [key for key in keys if key.account_id == account.id],
            )
            for account in accounts.list()
        ]
        here = f"{request.url.scheme}://{request.url.netloc}{root}"
        base = settings.public_url if settings.allowed_hosts else here
        shown = page.show(
            people,
            accounts.audit.entries(ACTS_SHOWN),
            own_id=person_of(request).id,
            link=link_address(base, secret) if secret else "",
            problem=error_text(error, language) if error else "",
        )
        return HTMLResponse(shown, 200 if error is None else 400)
