"""Limits on request bodies: their size, and JSON strictly by the standard.

Knows nothing of the bodies' meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.auth.origins import route_path
from app.web.error_responses import http_error_response
from engine.garbage import gc_disabled

MAX_BODY_BYTES = 4 * 2**20


class BodyLimit:
    """ASGI middleware that refuses a longer body with 413.

    The declared length is checked before anything is read; without one, the bytes are counted as
    they come. Must be outside everything that reads a body. `paths` have limits of their own.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int = MAX_BODY_BYTES,
        paths: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._paths.get(route_path(scope), self._max_bytes)
        if _declared_bytes(scope) > limit:
            response = await http_error_response(Request(scope), _too_long(limit))
            await response(scope, receive, send)
            return
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_long(limit)  # the framework turns it into a response
            return message

        await self._app(scope, counting, send)


def _too_long(limit: int) -> HTTPException:
    return HTTPException(413, f"the body is longer than {limit} bytes")


class StrictJsonRoute(APIRoute):
    """A route that answers 400 to JSON that Python accepts and the standard does not (NaN,
    Infinity), and to JSON that Python's parser cannot read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, on a request with a stricter `json`."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            text = (await self.body()).decode("utf-8-sig")
            with gc_disabled():  # a body may have a hundred thousand values
                return json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError:
            raise  # FastAPI reports the position
        except RecursionError:
            raise HTTPException(400, "the body is nested too deeply") from None
        except UnicodeDecodeError:
            raise HTTPException(400, "the body is not UTF-8") from None
        except ValueError:  # Python's limit is 4,300
            raise HTTPException(400, "the body has a number of too many digits") from None


def _refuse_constant(name: str) -> NoReturn:
    raise HTTPException(400, f"the body is not JSON: it has the number {name}")


def _declared_bytes(scope: Scope) -> int:
    """Return the Content-Length; 0 if it is absent or no number, so that bytes are counted."""
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    return max((int(value[:20]) for value in values if value.isdigit()), default=0)
