"""Checks of Host and Origin on every route, gradio's too: DNS rebinding and request forgery.

Knows headers; knows nothing of persons and passwords.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.error_responses import http_error_response

SAFE_METHODS = ("GET", "HEAD")
API_PATHS = ("/v1/", "/api/")


class AllowedHosts:
    """Answers 400 to a request whose Host header is no name of this server.

    A page elsewhere reaches a server on this machine under a name of its own that it lets resolve
    to 127.0.0.1 (DNS rebinding), and is then of the same origin as the server's pages. Such an
    attack needs a name: IP addresses are let in, and `localhost`, and the names that are given.
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
            await (await http_error_response(None, error))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, hosts: list[str]) -> bool:
        try:
            (host,) = hosts
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # none, several, or one that is no host
            return False
        return name.rstrip(".") in self._names or _is_address(name)


class CrossOriginProtection:
    """Answers 403 to cross-origin requests, except for links to a page here.

    The resource isolation policy of Fetch Metadata (W3C, Fetch Metadata Request Headers):
    `Sec-Fetch-Site` says whose page is asking. Browsers do not send it over plain HTTP to other
    machines; there the Origin header is compared with Host, as Go's `http.CrossOriginProtection`
    does. Programs send neither. Pages of `origins` ("https://example.org") may use the API, and not
    the pages' own routes.
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
            await (await http_error_response(None, error))(scope, receive, send)
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
    """Whether the browser goes to a page in a tab of its own, which nobody else can look into."""
    asked = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return method in SAFE_METHODS and asked == ("navigate", "document")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def route_path(scope: Scope) -> str:
    """The path inside the application, or inside the mounted one that is asked."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if path.startswith(root) else path
