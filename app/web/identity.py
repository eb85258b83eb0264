"""Who is asking: a random id in a signed cookie, one per browser. No addresses, no names."""

from __future__ import annotations

import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

SESSION_SECONDS = 10 * 365 * 24 * 3600
API_USER = "api"


class AnonymousIdentity:
    """Gives each new session an id. Stands inside Starlette's SessionMiddleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] == "http" and _wants_page(scope):
            scope["session"].setdefault("user", uuid.uuid4().hex)
        await self._app(scope, receive, send)


def user_of(session: MutableMapping[str, Any]) -> str:
    """The user of a session; callers without a cookie are the one API user."""
    return str(session.get("user", API_USER))


def _wants_page(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
