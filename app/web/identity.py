"""User identity: a random id in a signed cookie, one per browser. No addresses, no names."""

from __future__ import annotations

import uuid
from collections.abc import MutableMapping
from typing import Any

from itsdangerous import TimestampSigner
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

SESSION_SECONDS = 10 * 365 * 24 * 3600
API_USER = "api"


class SignedSession(SessionMiddleware):
    """Starlette's sessions, valid as long as the key that signs them.

    Starlette refuses a cookie that was signed in the future: after the clock is set back, it would
    not recognise anybody.
    """

    def __init__(self, app: ASGIApp, secret_key: str, path: str, https_only: bool) -> None:
        super().__init__(
            app,
            secret_key,
            session_cookie="burnish_session",
            max_age=SESSION_SECONDS,
            same_site="lax",
            path=path,
            https_only=https_only,
        )
        self.signer = _AgelessSigner(secret_key)


class _AgelessSigner(TimestampSigner):
    """Signs with a timestamp, as existing cookies have it, and ignores it when verifying."""

    def unsign(self, signed_value: str | bytes, *_age: object, **_named: object) -> bytes:  # type: ignore[override]
        """Return the signed value; raises `BadSignature`."""
        return super().unsign(signed_value)


class AnonymousIdentity:
    """Gives each new session a user id. Must be inside `SignedSession`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] == "http" and _wants_page(scope):
            scope["session"].setdefault("user", new_user())
        await self._app(scope, receive, send)


def new_user() -> str:
    """Return an id for a new user."""
    return uuid.uuid4().hex


def user_of(session: MutableMapping[str, Any]) -> str:
    """Return the user of a session; callers without a cookie share the API user."""
    return str(session.get("user", API_USER))


def _wants_page(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
