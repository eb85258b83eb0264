"""The console's queue of comparisons: its page, and the routes that its script calls.

For reviewers and operators, as `access` says. Two answers are shown without a word on how they were
made.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.html.queue_page import COMPARISON_SCRIPT, queue_page
from app.service import Service
from app.texts import catalogue, language_for
from app.web.auth.identity import person_of
from app.web.body import StrictJsonRoute
from app.web.chat.documents import waiting_document
from app.web.chat.feedback_api import SAVED, ChoiceBody, in_bounded_threadpool
from feedback_store.records import OPERATOR

MOST_BESIDE = 60
COMPARISONS_SENT = 4  # comparisons in one response: the next one is on the page before it is needed
Beside = Annotated[list[int] | None, Query(max_length=MOST_BESIDE)]
QUEUE_PATH, QUEUE_ROUTES = "/console/compare", "/console/comparisons"


def comparisons_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(route_class=StrictJsonRoute, include_in_schema=False)
    queue = service.workspace.comparison_queue

    @router.get(QUEUE_PATH)
    def page(request: Request) -> HTMLResponse:
        return HTMLResponse(
            queue_page(language_for(request), "chat.queue_title", COMPARISON_SCRIPT)
        )

    @router.get(QUEUE_ROUTES)
    @in_bounded_threadpool
    def waiting(beside: Beside = None) -> dict[str, Any]:
        """Return the next comparisons, but for those that the page has already."""
        found = queue.waiting(COMPARISONS_SENT, live=service.slots.live, beside=beside or ())
        return {"waiting": [waiting_document(each) for each in found], "counts": queue.counts()}

    @router.get(QUEUE_ROUTES + "/texts")
    def texts(request: Request) -> dict[str, Any]:
        language = language_for(request)
        return {"language": language, "texts": catalogue(language, "chat")}

    @router.post(QUEUE_ROUTES + "/{waiting_id}/choice")
    @in_bounded_threadpool
    def choose(waiting_id: int, body: ChoiceBody, request: Request) -> dict[str, str]:
        queue.choose(waiting_id, judge_of(request), body.choice)
        return SAVED

    @router.post(QUEUE_ROUTES + "/{waiting_id}/skip")
    @in_bounded_threadpool
    def skip(waiting_id: int) -> dict[str, str]:
        queue.skip(waiting_id)
        return SAVED

    @router.post(QUEUE_ROUTES + "/{waiting_id}/undo")
    @in_bounded_threadpool
    def undo(waiting_id: int, request: Request) -> dict[str, str]:
        queue.undo(waiting_id, judge_of(request))
        return SAVED

    return router


def judge_of(request: Request) -> str:
    """Return whose choices on the console are: the account's, or `operator` where there is none."""
    person = person_of(request)
    return OPERATOR if person.name is None else person.id
