"""The page of an evaluation, `evaluation.html`, for operators."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.workspace import Workspace
from engine.storage import find_digest, folder_of
from tuning.evaluation.report import PAGE_FILE

EVALUATIONS_PATH = "/console/evaluations"


def evaluation_link(evaluation: str) -> str:
    """Return the page's address relative to the console's own: it holds behind a path prefix."""
    return f"{EVALUATIONS_PATH.rpartition('/')[2]}/{evaluation[7:]}"


def evaluations_router(workspace: Workspace) -> APIRouter:
    """Return the route, on one home."""
    router = APIRouter(include_in_schema=False)

    @router.get(EVALUATIONS_PATH + "/{evaluation}")
    def page(evaluation: str) -> HTMLResponse:
        """Return the page; its scripts run by the nonces that every page's own scripts get."""
        folder = folder_of(
            workspace.home.evaluations, find_digest(workspace.home.evaluations, evaluation)
        )
        return HTMLResponse((folder / PAGE_FILE).read_text("utf-8"))

    return router
