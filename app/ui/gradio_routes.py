"""ASGI middleware before Gradio: allowed routes only, and sessions bound to their person.

Gradio also has routes for uploads, downloads, a proxy, recordings and code generation, which no
page here needs. Knows gradio's paths and request fields; knows nothing of widgets.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.auth.identity import user_of
from app.web.auth.origins import route_path
from app.web.error_responses import http_error_response

ALLOWED = re.compile(
    r"/?|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/.*"
    r"|/gradio_api/(queue/(join|data)|run/predict|cancel|reset|startup-events|heartbeat/\w+)/?"
)
HEARTBEAT = re.compile(r"(.*/heartbeat/)(\w+)(/?)")


class AllowedRoutes:
    """Answers 404 to every route that the pages do not use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point, inside gradio's application."""
        if scope["type"] == "http" and not ALLOWED.fullmatch(route_path(scope)):
            error = HTTPException(404, f"there is no path {scope['path'][:100]}")
            await (await http_error_response(Request(scope), error))(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BoundSessions:
    """Binds gradio's sessions to the person.

    A browser tab chooses its `session_hash`, and another person's would give access to that
    person's session. So gradio receives a digest of the hash and the user id instead: the same
    hash from another person is another session.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point, inside Starlette's session middleware."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        user = user_of(scope["session"])
        scope = dict(scope)
        query = [
            (name, _bound(value, user) if name == "session_hash" else value)
            for name, value in parse_qsl(scope["query_string"].decode("latin-1"), True)
            if name != "page"  # gradio's own pages have none, and it fails on an unknown one
        ]
        scope["query_string"] = urlencode(query).encode()
        if beat := HEARTBEAT.fullmatch(scope["path"]):
            scope["path"] = f"{beat[1]}{_bound(beat[2], user)}{beat[3]}"
        if scope["method"] == "POST":
            try:
                body = _with_bound_session(await _whole_body(receive), user)
            except HTTPException as error:  # the body is too long; gradio would answer 500
                await (await http_error_response(Request(scope), error))(scope, receive, send)
                return
            scope["headers"] = [h for h in scope["headers"] if h[0] != b"content-length"]
            scope["headers"].append((b"content-length", str(len(body)).encode()))
            receive = _Replayed(body, receive)
        await self._app(scope, receive, send)


class _Replayed:
    """Replays a body that was read already, then receives what follows (the disconnection)."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._receive = receive

    async def __call__(self) -> Message:
        message, self._message = self._message, None
        return message or await self._receive()


async def _whole_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body.extend(message.get("body", b""))
        if not message.get("more_body", False):
            return bytes(body)


def _with_bound_session(body: bytes, user: str) -> bytes:
    """Return the body with its `session_hash` bound to the user; unchanged if it has none."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(document, dict) or not isinstance(document.get("session_hash"), str):
        return body
    return json.dumps(document | {"session_hash": _bound(document["session_hash"], user)}).encode()


def _bound(session_hash: str, user: str) -> str:
    return hashlib.sha256(f"{user}\n{session_hash}".encode()).hexdigest()[:32]
