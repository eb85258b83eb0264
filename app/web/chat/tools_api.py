"""Routes of tools: those that are on, and which of them a person lets answers call."""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from app.service import Service
from app.texts import language_for, translated
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute


class AllowBody(BaseModel):
    """The caller's permission for answers to call a tool."""

    model_config = ConfigDict(extra="forbid")
    allowed: bool


def tools_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/chat/tools", route_class=StrictJsonRoute, include_in_schema=False)
    toolbox = service.workspace.toolbox
    # Async, so that a server that does not answer holds no thread of the short requests

    @router.get("")
    async def listing(request: Request) -> dict[str, Any]:
        wait = partial(toolbox.known, wait_seconds=toolbox.limits.timeout_seconds)
        known, problems = await run_sync(wait)
        allowed = await run_sync(toolbox.allowed, user_of(request.session))
        return {
            "tools": [
                {
                    "name": each.function.name,
                    "description": each.function.description,
                    "server": each.server,
                    "allowed": (each.function.name, each.digest) in allowed,
                }
                for each in known
            ],
            "problems": [translated(each, language_for(request)) for each in problems],
        }

    @router.put("/{tool_name}")
    async def allow(tool_name: str, body: AllowBody, request: Request) -> dict[str, Any]:
        await run_sync(toolbox.allow, user_of(request.session), tool_name, body.allowed)
        return {"name": tool_name, "allowed": body.allowed}

    return router
