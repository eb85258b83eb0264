"""Sessions in a signed cookie. Knows how they are signed; knows nothing of what is in them."""

from __future__ import annotations

from itsdangerous import TimestampSigner
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp

from engine.units import DAY_SECONDS

SESSION_SECONDS = 10 * 365 * DAY_SECONDS


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
