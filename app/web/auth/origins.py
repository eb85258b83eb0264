"""Checks Host and Origin on every route, against DNS rebinding and cross-site request forgery.

Knows headers; knows nothing of persons and passwords.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.error_responses import http_error_response

SAFE_METHODS = ("GET", "HEAD")
API_PATHS = ("/v1/", "/api/")


class AllowedHosts:
    """Answers 400 to a request whose Host header does not name this server.

    In DNS rebinding, a page of another site lets its own host name resolve to 127.0.0.1 and so
    gets the same origin as the server's pages. The attack needs a host name, so IP addresses,
    `localhost` and the given `names` are allowed, and nothing else.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = frozenset(name.lower().rstrip(".") for name in ("localhost", *names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] == "http" and not self._is_known(Headers(scope=scope).getlist("host")):
            error = HTTPException(
                400, "unknown host name in the Host header: add it to BURNISH_ALLOWED_HOSTS"
            )
            await (await http_error_response(Request(scope), error))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, hosts: list[str]) -> bool:
        try:
            (host,) = hosts
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # no Host header, several, or an invalid one
            return False
        return name.rstrip(".") in self._names or _is_address(name)


class CrossOriginProtection:
    """Answers 403 to cross-origin requests, except for links to a page here.

    Implements the resource isolation policy of Fetch Metadata (W3C, Fetch Metadata Request
    Headers): `Sec-Fetch-Site` names the relation of the requesting page. Browsers do not send it
    over plain HTTP to other machines; there Origin is compared with Host, as in Go's
    `http.CrossOriginProtection`. Programs send neither header. Pages of `origins`
    ("https://example.org") may use the API, but not the pages' private routes.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] == "http" and self._is_foreign(scope):
            error = HTTPException(
                403,
                "cross-origin request refused: add the page's origin to BURNISH_ALLOWED_ORIGINS",
            )
            await (await http_error_response(Request(scope), error))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers, method = Headers(scope=scope), scope["method"]
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._origins and route_path(scope).startswith(API_PATHS):
            return False
        if site is not None:
            return site not in ("same-origin", "none") and not _follows_link(headers, method)
        return origin is not None and urlsplit(origin).netloc != headers.get("host")


def _follows_link(headers: Headers, method: str) -> bool:
    """Return whether this is a top-level navigation, whose page the other site cannot read."""
    asked = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return method in SAFE_METHODS and asked == ("navigate", "document")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def route_path(scope: Scope) -> str:
    """Return the path within the application, or within the mounted one."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if path.startswith(root) else path
