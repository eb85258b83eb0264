"""HTTP error responses: `{"error": {"message": one sentence, "type": its kind}}`."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from app.ui.texts import error_text, language_for
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


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers that give every error this format."""
    app.add_exception_handler(BurnishError, _burnish_error_response)
    app.add_exception_handler(RequestValidationError, _validation_error_response)
    app.add_exception_handler(StarletteHTTPException, http_error_response)
    app.add_exception_handler(Exception, _unexpected_error_response)


def error_document(error: Exception, message: str | None = None) -> dict[str, Any]:
    """Return the response body of an error."""
    return {"error": {"message": message or str(error), "type": type(error).__name__}}


async def http_error_response(_request: Request | None, error: Exception) -> JSONResponse:
    """Return the response to an HTTPException."""
    assert isinstance(error, StarletteHTTPException)
    document = error_document(HTTPException(error.status_code), str(error.detail))
    return JSONResponse(document, error.status_code, error.headers)


async def _unexpected_error_response(_request: Request, _error: Exception) -> JSONResponse:
    """Return 500 without the error's text, which may quote a user; the log has the place."""
    return JSONResponse(error_document(BurnishError("the server failed; its log says where")), 500)


async def _burnish_error_response(request: Request, error: Exception) -> JSONResponse:
    """Return the response to a Burnish error, in the client's language."""
    assert isinstance(error, BurnishError)
    status = next(code for kind, code in STATUS if isinstance(error, kind))
    headers = None
    if isinstance(error, Overloaded):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}
    sentence = error_text(error, language_for(request))
    return JSONResponse(error_document(error, sentence), status, headers)


async def _validation_error_response(_request: Request, error: Exception) -> JSONResponse:
    """Return 400 naming the invalid fields, without their values, which may not be valid JSON."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    sentence = "; ".join(_sentence(problem) for problem in problems[:MAX_PROBLEMS_LISTED])
    if len(problems) > MAX_PROBLEMS_LISTED:
        sentence += f"; and {len(problems) - MAX_PROBLEMS_LISTED} more"
    return JSONResponse(error_document(InvalidInput(sentence)), 400)


def _sentence(problem: dict[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']} at character {problem['loc'][-1]}"
    place = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
    return f"{place}: {problem['msg']}"
