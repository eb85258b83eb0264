"""The routes of the chat page, beside the feedback routes under `/api`.

The page is a view of the store: conversations, branches and votes are read from it, and a running
answer is a stream of server-sent events that any page may join. These routes are private to the
page and change with it; programs use `/v1` and `/api`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from app.answering.answering import BASE, LIVE
from app.answering.live_answers import LiveAnswers
from app.service import Service
from app.texts import LANGUAGES, catalogue, language_for
from app.web.auth.identity import person_of
from app.web.body import StrictJsonRoute
from app.web.chat.answers_api import add_answer_routes, add_offer_routes
from app.web.chat.conversation_serializer import ConversationSerializer
from app.web.chat.conversations_api import add_conversation_routes
from app.web.chat.documents import short_release
from app.web.chat.import_api import MAX_IMPORT_BYTES
from engine.prompts.modes import CHAINS, LEAST_CHAINS, MODES, MOST_CHAINS
from feedback_store.records import BAD_REASONS, GOOD_REASONS


def chat_router(service: Service, live: LiveAnswers) -> APIRouter:
    """Return the routes, on one running service and its running answers."""
    router = APIRouter(prefix="/chat", route_class=StrictJsonRoute, include_in_schema=False)
    serializer = ConversationSerializer(
        service.workspace.conversations, service.workspace.store, live
    )
    _add_boot_route(router, service)
    add_conversation_routes(router, service.workspace.conversations, serializer)
    add_answer_routes(router, service, live, serializer)
    add_offer_routes(router, service, live)
    return router


def _add_boot_route(router: APIRouter, service: Service) -> None:
    settings = service.workspace.settings

    @router.get("/boot")
    def boot(request: Request) -> dict[str, Any]:
        """Return what a page needs before it draws: its texts and choices."""
        language = language_for(request)
        reasons = {f"reason_{word}": said for word, said in catalogue(language, "reasons").items()}
        return {
            "language": language,
            "languages": LANGUAGES,
            "texts": {**catalogue(language, "chat"), **reasons},
            "modes": MODES,
            "chains": {"is": CHAINS, "min": LEAST_CHAINS, "max": MOST_CHAINS},
            "thinks": service.engine.thinks_unasked,
            "reasons": {"1": GOOD_REASONS, "-1": BAD_REASONS},
            "release": short_release(service.slots.live),
            "releases": _releases(service) if person_of(request).is_at_least("operator") else [],
            "account": person_of(request).name,
            "max_import_bytes": MAX_IMPORT_BYTES,
            "has_tools": not service.workspace.toolbox.is_empty,
            "sampling": {
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "max_new_tokens": settings.max_new_tokens,
            },
        }


def _releases(service: Service) -> list[str]:
    """Return the releases that an operator may choose."""
    tainted = service.workspace.registry.tainted()
    known = [r.bundle for r in service.workspace.registry.list() if r.bundle not in tainted]
    return [LIVE, BASE, *known] if known else []
