"""The console's queue of drafts: its page, and the routes that its script calls.

For reviewers and operators, as `access` says. A draft is shown beside the passage that it was made
from; `burnish data` does the same on the command line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from app.html.queue_page import DRAFT_SCRIPT, queue_page
from app.learning.drafting import learn_draft
from app.service import Service
from app.texts import language_for
from app.web.body import StrictJsonRoute
from app.web.chat.comparisons_api import MOST_BESIDE, judge_of
from app.web.chat.documents import passage_documents
from app.web.chat.feedback_api import SAVED, in_bounded_threadpool
from feedback_store.ai_feedback.drafts import WaitingDraft

DRAFTS_SENT = 4  # drafts in one response: the next one is on the page before it is needed
BesideDrafts = Annotated[list[str] | None, Query(max_length=MOST_BESIDE)]
DRAFTS_PATH = "/console/drafts"


class ApprovalBody(BaseModel):
    """A draft in the words in which it is learnt."""

    model_config = ConfigDict(extra="forbid")
    question: str
    answer: str


def drafts_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix=DRAFTS_PATH, route_class=StrictJsonRoute, include_in_schema=False)
    drafts, settings = service.workspace.drafts, service.workspace.settings

    @router.get("")
    def page(request: Request) -> HTMLResponse:
        return HTMLResponse(queue_page(language_for(request), "chat.drafts_title", DRAFT_SCRIPT))

    @router.get("/waiting")
    @in_bounded_threadpool
    def waiting(beside: BesideDrafts = None) -> dict[str, Any]:
        """Return the next drafts, but for those that the page has already."""
        found = drafts.waiting(DRAFTS_SENT, beside=beside or ())
        counts = {"waiting": drafts.count_waiting()}
        return {"waiting": list(map(draft_document, found)), "counts": counts}

    @router.post("/{draft_id}/approve")
    @in_bounded_threadpool
    def approve(draft_id: str, body: ApprovalBody, request: Request) -> dict[str, str]:
        changed = replace(drafts.find(draft_id), question=body.question, answer=body.answer)
        learn_draft(drafts, changed, settings.system_prompt, judge_of(request))
        return SAVED

    @router.post("/{draft_id}/drop")
    @in_bounded_threadpool
    def drop(draft_id: str) -> dict[str, str]:
        drafts.drop(draft_id)
        return SAVED

    @router.post("/{draft_id}/undo")
    @in_bounded_threadpool
    def undo(draft_id: str, request: Request) -> dict[str, str]:
        drafts.undo(draft_id, judge_of(request))
        return SAVED

    return router


def draft_document(draft: WaitingDraft) -> dict[str, Any]:
    """Return a draft as the page shows it, with the passage that it was made from."""
    (passage,) = passage_documents([draft.passage])
    shown = {"id": draft.id, "question": draft.question, "answer": draft.answer}
    return {**shown, "collection": draft.collection, "passage": passage}
