"""Feedback by HTTP: what the browser does with buttons. An id that is unknown and one that is
somebody else's both answer 404."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.service import Service
from app.web.body import StrictJsonRoute
from app.web.identity import user_of


class VoteBody(BaseModel):
    """A thumb: 1 up, -1 down, 0 cleared."""

    model_config = ConfigDict(extra="forbid")
    vote: Literal[-1, 0, 1]
    idempotency_key: str | None = Field(default=None, max_length=64)


class CorrectionBody(BaseModel):
    """The answer as it should have been."""

    model_config = ConfigDict(extra="forbid")
    text: str
    idempotency_key: str | None = Field(default=None, max_length=64)


def feedback_router(service: Service) -> APIRouter:
    """The routes over one running service."""
    router = APIRouter(prefix="/api/answers", route_class=StrictJsonRoute)
    store = service.workspace.store

    @router.get("/{answer_id}")
    def answer(answer_id: str, request: Request) -> dict[str, object]:
        found = store.answer(answer_id, user_of(request.session))
        return {name: getattr(found, name) for name in found.__dataclass_fields__}

    @router.post("/{answer_id}/vote")
    def vote(answer_id: str, body: VoteBody, request: Request) -> dict[str, str]:
        user = user_of(request.session)
        store.vote(answer_id, user, body.vote, idempotency_key=body.idempotency_key)
        return {"status": "saved"}

    @router.post("/{answer_id}/correction")
    def correct(answer_id: str, body: CorrectionBody, request: Request) -> dict[str, str]:
        user = user_of(request.session)
        store.correct(answer_id, user, body.text, idempotency_key=body.idempotency_key)
        return {"status": "saved"}

    return router
