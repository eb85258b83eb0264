"""Routes of prompts: list a person's and the operator's, edit a person's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from app.service import Service
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.chat.feedback_api import in_bounded_threadpool
from feedback_store.personal.own_prompts import PromptKind, PromptText


class PromptBody(BaseModel):
    """A prompt as a person writes it."""

    model_config = ConfigDict(extra="forbid")
    kind: PromptKind
    title: str
    text: str

    def prompt(self) -> PromptText:
        """Return the prompt to store."""
        return PromptText(self.kind, self.title, self.text)


def prompts_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/chat/prompts", route_class=StrictJsonRoute, include_in_schema=False)
    workspace = service.workspace
    own = workspace.own_prompts

    def prompts_of(user_id: str) -> dict[str, Any]:
        return {
            "own": [asdict(prompt) for prompt in own.of(user_id)],
            "shared": [asdict(prompt) for prompt in workspace.shared_prompts()],
        }

    @router.get("")
    @in_bounded_threadpool
    def listing(request: Request) -> dict[str, Any]:
        return prompts_of(user_of(request.session))

    @router.post("")
    @in_bounded_threadpool
    def add(body: PromptBody, request: Request) -> dict[str, str]:
        return {"id": own.add(user_of(request.session), body.prompt())}

    @router.put("/{prompt_id}")
    @in_bounded_threadpool
    def change(prompt_id: str, body: PromptBody, request: Request) -> dict[str, str]:
        own.change(prompt_id, user_of(request.session), body.prompt())
        return {"id": prompt_id}

    @router.delete("/{prompt_id}")
    @in_bounded_threadpool
    def remove(prompt_id: str, request: Request) -> dict[str, str]:
        own.remove(prompt_id, user_of(request.session))
        return {"id": prompt_id}

    return router
