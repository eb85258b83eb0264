"""HTTP error responses: `{"error": {"message": one sentence, "type": its kind}}`.

Under `/v1/messages` they are in Anthropic's format, with its names of kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from app.texts import error_text, language_for
from engine.errors import (
    BurnishError,
    Conflict,
    DatabaseUnavailable,
    DeadlineExceeded,
    EngineFailure,
    InvalidBundle,
    InvalidInput,
    InvalidText,
    Overloaded,
    PromptTooLong,
    ShuttingDown,
    StorageFull,
    UnknownId,
)

# The first match decides: from subclasses to base classes.
STATUS: tuple[tuple[type[BurnishError], int], ...] = (
    (UnknownId, 404),
    (PromptTooLong, 413),
    (InvalidText, 422),
    (InvalidBundle, 422),
    (InvalidInput, 400),
    (Conflict, 409),
    (ShuttingDown, 503),
    (Overloaded, 429),
    (DeadlineExceeded, 504),
    (StorageFull, 507),
    (DatabaseUnavailable, 503),
    (EngineFailure, 503),
    (BurnishError, 500),
)
MAX_PROBLEMS_LISTED = 3
ANTHROPIC_PATH = "/v1/messages"
ANTHROPIC_ERROR_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers that give every error this format."""
    app.add_exception_handler(BurnishError, burnish_error_response)
    app.add_exception_handler(RequestValidationError, _validation_error_response)
    app.add_exception_handler(StarletteHTTPException, http_error_response)
    app.add_exception_handler(Exception, _unexpected_error_response)


def error_document(error: Exception, message: str | None = None) -> dict[str, Any]:
    """Return the response body of an error."""
    return {"error": {"message": message or str(error), "type": type(error).__name__}}


def anthropic_error_document(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error as clients of Anthropic's API read it."""
    otherwise = "invalid_request_error" if status < 500 else "api_error"
    kind = ANTHROPIC_ERROR_TYPES.get(status, otherwise)
    return {"type": "error", "error": {"type": kind, "message": message}}


def status_of(error: BurnishError) -> int:
    """Return the HTTP status of an error."""
    return next(code for kind, code in STATUS if isinstance(error, kind))


async def http_error_response(request: Request, error: Exception) -> JSONResponse:
    """Return the response to an HTTPException."""
    assert isinstance(error, StarletteHTTPException)
    as_named = HTTPException(error.status_code)
    return _response(request, as_named, error.status_code, str(error.detail), error.headers)


async def _unexpected_error_response(request: Request, _error: Exception) -> JSONResponse:
    """Return 500 without the error's text, which may quote a user; the log has the place."""
    return _response(request, BurnishError("the server failed; its log says where"), 500)


async def burnish_error_response(request: Request, error: Exception) -> JSONResponse:
    """Return the response to a Burnish error, in the client's language."""
    assert isinstance(error, BurnishError)
    headers = None
    if isinstance(error, Overloaded):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}
    sentence = error_text(error, language_for(request))
    return _response(request, error, status_of(error), sentence, headers)


async def _validation_error_response(request: Request, error: Exception) -> JSONResponse:
    """Return 400 naming the invalid fields, without their values, which may not be valid JSON."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    sentence = "; ".join(_sentence(problem) for problem in problems[:MAX_PROBLEMS_LISTED])
    if len(problems) > MAX_PROBLEMS_LISTED:
        sentence += f"; and {len(problems) - MAX_PROBLEMS_LISTED} more"
    return _response(request, InvalidInput(sentence), 400)


def _response(
    request: Request,
    error: Exception,
    status: int,
    sentence: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the response in the format of the API that the request's path belongs to."""
    document = error_document(error, sentence)
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path.startswith(ANTHROPIC_PATH):
        document = anthropic_error_document(status, document["error"]["message"])
    return JSONResponse(document, status, headers)


def _sentence(problem: dict[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']} at character {problem['loc'][-1]}"
    place = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
    return f"{place}: {problem['msg']}"
