"""The routes of the page "My feedback".

They return the outcome of a person's feedback, the answers shown as examples and a copy of all the
person's data, and erase the person. The routes are private to the page and change with it. A caller
without a cookie is refused, since all such callers share one identity.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response

from app.answering.live_answers import LiveAnswers
from app.service import Service
from app.texts import language_for
from app.web.auth.identity import new_user
from app.web.body import StrictJsonRoute
from app.web.chat.documents import short_release
from app.web.chat.feedback_api import in_bounded_threadpool
from app.web.chat.my_feedback_documents import (
    example_documents,
    outcome_document,
    summary_of,
    texts_document,
)
from app.workspace import Workspace
from engine.errors import InvalidInput, UnknownId
from feedback_store.personal.personal_data import personal_data

PAGE_STATEMENTS = 20
PAGE_EXAMPLES = 20
NO_COOKIE = "this browser sends no cookie, so nothing here is yours alone; allow cookies and reload"


def my_feedback_router(service: Service, live: LiveAnswers) -> APIRouter:
    """Return the routes, on one running service and its running answers."""
    router = APIRouter(prefix="/chat", route_class=StrictJsonRoute, include_in_schema=False)
    _add_outcome_routes(router, service)
    _add_example_routes(router, service.workspace)
    _add_person_routes(router, service.workspace, live)
    return router


def _person_of(request: Request) -> str:
    """Return the user's id; raises `InvalidInput` for a caller without a cookie."""
    user = request.session.get("user")
    if user is None:
        raise InvalidInput(NO_COOKIE)
    return str(user)


def _account(workspace: Workspace, user: str) -> dict[str, Any]:
    """Return the person's account as a part of their data, if they have one."""
    account = workspace.accounts.data(user)
    return {"account": account} if account else {}


def _add_outcome_routes(router: APIRouter, service: Service) -> None:
    workspace = service.workspace

    @router.get("/feedback")
    @in_bounded_threadpool
    def statements(request: Request, before: int | None = None) -> dict[str, Any]:
        """Return a page of the person's statements, the newest first, before one of them."""
        user, language = _person_of(request), language_for(request)
        outcomes = workspace.outcomes.of(user)
        lineages = workspace.learning.of([each.statement.event_id for each in outcomes])
        rest = [o for o in outcomes if before is None or o.statement.event_id < before]
        return {
            "summary": summary_of(outcomes, lineages),
            "statements": [
                outcome_document(each, lineages[each.statement.event_id], language)
                for each in rest[:PAGE_STATEMENTS]
            ],
            "more": len(rest) > PAGE_STATEMENTS,
            "consent": workspace.curation.consents(user),
            "live": short_release(service.slots.live),
        }

    @router.get("/feedback/{event_id}")
    @in_bounded_threadpool
    def texts(event_id: int, request: Request) -> dict[str, Any]:
        user = _person_of(request)
        said = workspace.outcomes.statement(user, event_id)
        answers = [workspace.store.answer(answer_id, user) for answer_id in said.answer_ids]
        return texts_document(said, answers)


def _add_example_routes(router: APIRouter, workspace: Workspace) -> None:
    chosen = workspace.feedback_examples

    @router.get("/examples")
    @in_bounded_threadpool
    def examples(request: Request, first: int = 0) -> dict[str, Any]:
        user, is_on = _person_of(request), workspace.settings.own_examples
        every = workspace.own_examples.of(user) if is_on else ()
        page = every[max(first, 0) :][:PAGE_EXAMPLES]
        shared = {each.id for each in workspace.shared_examples.examples()}
        return {
            "examples": [
                {**each, "for_everybody": each["answer"] in shared}
                for each in example_documents(page)
            ],
            "count": len(every),
        }

    @router.delete("/examples/{answer_id}")
    @in_bounded_threadpool
    def remove(answer_id: str, request: Request) -> dict[str, str]:
        chosen.remove(_person_of(request), answer_id)
        return {"status": "removed"}

    @router.post("/examples/{answer_id}/restore")
    @in_bounded_threadpool
    def restore(answer_id: str, request: Request) -> dict[str, str]:
        chosen.restore(_person_of(request), answer_id)
        return {"status": "restored"}

    @router.get("/answers/{answer_id}/examples")
    @in_bounded_threadpool
    def used(answer_id: str, request: Request) -> dict[str, Any]:
        """Return the examples in an answer's prompt, and which the person has removed since.

        A shared example has no reference to its author or their conversation.
        """
        user = _person_of(request)
        removed = chosen.removed(user)
        return {
            "examples": [
                {**each, "removed": each["answer"] in removed}
                for each in example_documents(chosen.used(user, answer_id))
            ]
        }


def _add_person_routes(router: APIRouter, workspace: Workspace, live: LiveAnswers) -> None:
    @router.get("/person/data")
    @in_bounded_threadpool
    def data(request: Request) -> Response:
        """Return all stored data of the person, as a file."""
        user = _person_of(request)
        documents = workspace.documents.copy_of(user)
        document = {
            **personal_data(workspace.database, user),
            **_account(workspace, user),
            "documents": documents,
        }
        return Response(
            json.dumps(document, ensure_ascii=False, indent=1),
            media_type="application/json",
            headers={"Content-Disposition": 'attachment; filename="burnish-my-data.json"'},
        )

    @router.post("/person/forget")
    @in_bounded_threadpool
    def forget(request: Request) -> dict[str, Any]:
        """Erase the person for good; from now on the browser has a new identity.

        The person's running answers are stopped first, so that none is stored afterwards.
        """
        user, forgotten = _person_of(request), {"conversations": 0, "releases": 0}
        live.stop_all(user)
        with suppress(UnknownId):  # nothing is stored of the person
            receipt = workspace.forgetting.forget(user)
            forgotten["conversations"] = receipt.conversations
            forgotten["releases"] = len(receipt.bundles)
        request.session["user"] = new_user()
        return {"status": "forgotten", **forgotten}
