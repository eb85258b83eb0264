"""The console's inbox of down-voted answers: its page, and what its buttons do. For operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.html.inbox_page import INBOX_PATH, VOTES_A_PAGE, InboxFilter, InboxPage
from app.html.searching import search_for
from app.texts import language_for
from app.web.auth.identity import actor_id
from app.web.chat.feedback_api import in_bounded_threadpool
from app.workspace import Workspace

Words = Annotated[str, Query(max_length=200)]
First = Annotated[int, Query(ge=0)]
ALERTS = "#alerts"  # the part of the page
WithLooked = Annotated[bool, Query(alias="all")]


def inbox_router(workspace: Workspace) -> APIRouter:
    """Return the routes, on one home."""
    router = APIRouter(prefix=INBOX_PATH, include_in_schema=False)
    inbox = workspace.inbox

    @router.get("")
    @in_bounded_threadpool
    def page(
        request: Request, words: Words = "", looked_at: WithLooked = False, first: First = 0
    ) -> HTMLResponse:
        """Return the votes that pass the filter."""
        language = language_for(request)
        shown = InboxFilter(words, looked_at, first)
        wanted = search_for(words, language, workspace.accounts)
        votes, total = inbox.page(wanted, looked_at=looked_at, first=first, count=VOTES_A_PAGE)
        names = {each.id: each.name for each in workspace.accounts.list()}
        drawn = InboxPage(language, request.scope.get("root_path", ""), names)
        return HTMLResponse(drawn.show(shown, votes, total, workspace.alerts()))

    @router.post("/{event_id}/look_at")
    @in_bounded_threadpool
    def look_at(event_id: int, request: Request) -> RedirectResponse:
        inbox.look_at(event_id)
        return _back(request)

    @router.post("/{event_id}/put_back")
    @in_bounded_threadpool
    def put_back(event_id: int, request: Request) -> RedirectResponse:
        inbox.put_back(event_id)
        return _back(request)

    @router.post("/alerts/{alert_id}/look_at")
    @in_bounded_threadpool
    def look_at_alert(alert_id: str, request: Request) -> RedirectResponse:
        workspace.look_at_alert(alert_id, actor_id(request))
        return _back(request, ALERTS)

    @router.post("/alerts/{alert_id}/put_back")
    @in_bounded_threadpool
    def put_alert_back(alert_id: str, request: Request) -> RedirectResponse:
        workspace.put_alert_back(alert_id, actor_id(request))
        return _back(request, ALERTS)

    return router


def _back(request: Request, place: str = "") -> RedirectResponse:
    """Redirect to the page from which a button was pressed, with the filters of its address."""
    there = f"{request.scope.get('root_path', '')}{INBOX_PATH}?{request.url.query}"
    return RedirectResponse(there.rstrip("?") + place, 303)
