"""Feedback routes: votes, corrections, comparisons, flags and consent.

An unknown id and an id of another person both answer 404.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.service import Service
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.completion_ids import AnswerName
from engine.errors import InvalidInput, InvalidText, UnknownId
from engine.prompts.reasoning import untagged
from feedback_store.records import ChoiceValue, StoredAnswer, VoteValue
from feedback_store.storage.statement_store import Noted
from feedback_store.storage.store import FeedbackStore

SAVED = {"status": "saved"}
P = ParamSpec("P")
T = TypeVar("T")
# Writers share commits, so a few threads save as many votes a second as many would. FastAPI's 40
# threads compete with the event loop for the interpreter lock, and delay votes by up to 0.3 s
MAX_THREADS = 12
_threads = CapacityLimiter(MAX_THREADS)


def in_bounded_threadpool(work: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Run a route's function in a pool of `MAX_THREADS` threads; further calls wait in line."""

    @wraps(work)
    async def run(*arguments: P.args, **named: P.kwargs) -> T:
        return await run_sync(partial(work, *arguments, **named), limiter=_threads)

    return run


class Statement(BaseModel):
    """The base of all feedback. Repeating an idempotency key has no effect."""

    model_config = ConfigDict(extra="forbid")
    idempotency_key: str | None = Field(default=None, max_length=64)


class VoteBody(Statement):
    """A thumb: 1 up, -1 down, 0 cleared; with reasons and a comment."""

    vote: VoteValue
    reasons: list[str] = Field(default=[], max_length=20)
    comment: str = ""


class CorrectionBody(Statement):
    """The answer as it should have been."""

    text: str


class ComparisonBody(BaseModel):
    """Two answers to one question, as they stand side by side."""

    model_config = ConfigDict(extra="forbid")
    left: AnswerName
    right: AnswerName


class ChoiceBody(Statement):
    """A choice between two answers."""

    choice: ChoiceValue


class ConsentBody(BaseModel):
    """The caller's consent to the use of their words for training."""

    model_config = ConfigDict(extra="forbid", strict=True)
    allowed: bool


def feedback_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/api", route_class=StrictJsonRoute)
    _add_answer_routes(router, service.workspace.store)
    _add_comparison_routes(router, service.workspace.store)
    _add_consent_routes(router, service)
    return router


def _add_answer_routes(router: APIRouter, store: FeedbackStore) -> None:
    @router.get("/answers/{answer_id}")
    @in_bounded_threadpool
    def answer(answer_id: AnswerName, request: Request) -> StoredAnswer:
        found = store.answer(answer_id, user_of(request.session))
        return replace(found, thought=untagged(found.thought))

    @router.post("/answers/{answer_id}/vote")
    @in_bounded_threadpool
    def vote(answer_id: AnswerName, body: VoteBody, request: Request) -> dict[str, str]:
        try:
            store.vote(
                answer_id,
                user_of(request.session),
                body.vote,
                reasons=body.reasons,
                comment=body.comment,
                idempotency_key=body.idempotency_key,
            )
        except UnknownId:
            raise
        except InvalidInput as error:  # an unknown reason is refused with 422, like invalid text
            raise InvalidText(str(error)) from error
        return SAVED

    @router.post("/answers/{answer_id}/correction")
    @in_bounded_threadpool
    def correct(answer_id: AnswerName, body: CorrectionBody, request: Request) -> dict[str, str]:
        user = user_of(request.session)
        store.correct(answer_id, user, body.text, idempotency_key=body.idempotency_key)
        return SAVED

    def note(answer_id: str, body: Statement | None, request: Request, kind: Noted) -> None:
        key = body.idempotency_key if body else None
        store.note(answer_id, user_of(request.session), kind, idempotency_key=key)

    @router.post("/answers/{answer_id}/copy")
    @in_bounded_threadpool
    def copy(
        answer_id: AnswerName, request: Request, body: Statement | None = None
    ) -> dict[str, str]:
        note(answer_id, body, request, "copy")
        return SAVED

    @router.post("/answers/{answer_id}/flag")
    @in_bounded_threadpool
    def flag(
        answer_id: AnswerName, request: Request, body: Statement | None = None
    ) -> dict[str, str]:
        note(answer_id, body, request, "flag")
        return SAVED


def _add_comparison_routes(router: APIRouter, store: FeedbackStore) -> None:
    @router.post("/comparisons")
    @in_bounded_threadpool
    def compare(body: ComparisonBody, request: Request) -> dict[str, str]:
        return {"id": store.compare(body.left, body.right, user_of(request.session)).id}

    @router.post("/comparisons/{comparison_id}/choice")
    @in_bounded_threadpool
    def choose(comparison_id: str, body: ChoiceBody, request: Request) -> dict[str, str]:
        user = user_of(request.session)
        store.choose(comparison_id, user, body.choice, idempotency_key=body.idempotency_key)
        return SAVED


def _add_consent_routes(router: APIRouter, service: Service) -> None:
    curation = service.workspace.curation

    @router.get("/consent")
    @in_bounded_threadpool
    def consent(request: Request) -> dict[str, bool]:
        return {"allowed": curation.consents(user_of(request.session))}

    @router.put("/consent")
    @in_bounded_threadpool
    def set_consent(body: ConsentBody, request: Request) -> dict[str, bool]:
        curation.set_consent(user_of(request.session), body.allowed)
        return {"allowed": body.allowed}
