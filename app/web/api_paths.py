"""The API's responses to unknown paths and methods.

The pages are mounted at `/` and answer every other path in their own way. So requests under the
API's prefixes are answered here first: HEAD like GET, OPTIONS with the allowed methods, another
method with 405 and the same, an unknown path with 404, each in the API's documented error format.
"""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

PREFIXES = ("v1", "api", "chat", "account", "healthz", "readyz", "metrics", "openapi.json")
HTTP_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def add_api_fallback(app: FastAPI) -> None:
    """Register the fallback, after the API's routes and before the pages are mounted."""
    answer = _Fallback(app)
    for prefix in PREFIXES:
        for path in (f"/{prefix}", f"/{prefix}/{{rest:path}}"):
            app.router.routes.append(Route(path, answer))


class _Fallback:
    """Answers requests that no route registered before it takes."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._routes = tuple(app.router.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        allowed = [method for method in HTTP_METHODS if self._is_taken(scope, method)]
        if scope["method"] == "HEAD" and "GET" in allowed:
            await self._app.router({**scope, "method": "GET"}, receive, send)
            return
        if not allowed:
            raise HTTPException(404, f"there is no path {scope['path'][:100]}")
        if "GET" in allowed:
            allowed.insert(1, "HEAD")
        names = ", ".join(allowed)
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"Allow": names})(scope, receive, send)
            return
        said = f"{scope['path'][:100]} takes {names} and not {scope['method'][:20]}"
        raise HTTPException(405, said, {"Allow": names})

    def _is_taken(self, scope: Scope, method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in self._routes)
