"""Routes of the side bar: list, search, change, delete, restore and export conversations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from app.texts import language_for
from app.web.auth.identity import user_of
from app.web.chat.conversation_serializer import ConversationSerializer
from app.web.chat.documents import found_document, summary_document
from app.web.chat.feedback_api import in_bounded_threadpool
from feedback_store.conversations.conversation_list import Conversations
from feedback_store.formats.conversations import to_json, to_markdown

PAGE_CONVERSATIONS = 40


class ConversationBody(BaseModel):
    """The changes to a conversation; absent fields stay."""

    model_config = ConfigDict(extra="forbid")
    title: str | None = None
    pinned: bool | None = None
    answer: str | None = Field(default=None, max_length=64)
    turn: str | None = Field(default=None, max_length=64)


def add_conversation_routes(
    router: APIRouter, conversations: Conversations, serializer: ConversationSerializer
) -> None:
    """Add the routes under `/conversations`."""

    @router.get("/conversations")
    @in_bounded_threadpool
    def listing(
        request: Request, before: float | None = None, before_id: str = "", words: str = ""
    ) -> dict[str, Any]:
        user = user_of(request.session)
        if words.strip():
            return {"found": [found_document(f) for f in conversations.search(user, words)]}
        after = None if before is None else (before, before_id)
        page = conversations.page(user, before=after, limit=PAGE_CONVERSATIONS)
        pinned = [] if after else conversations.pinned(user)
        return {
            "pinned": [summary_document(each) for each in pinned],
            "conversations": [summary_document(each) for each in page],
            "more": len(page) == PAGE_CONVERSATIONS,
        }

    @router.get("/conversations/{conversation_id}")
    @in_bounded_threadpool
    def view(
        conversation_id: str, request: Request, before: str | None = Query(None, max_length=64)
    ) -> dict[str, Any]:
        return serializer.conversation(
            conversation_id, user_of(request.session), language_for(request), before
        )

    @router.post("/conversations/{conversation_id}")
    @in_bounded_threadpool
    def change(conversation_id: str, body: ConversationBody, request: Request) -> dict[str, Any]:
        user = user_of(request.session)
        if body.title is not None:
            conversations.rename(conversation_id, user, body.title)
        if body.pinned is not None:
            conversations.pin(conversation_id, user, pinned=body.pinned)
        if body.answer is not None:
            conversations.show(conversation_id, user, body.answer)
        if body.turn is not None:
            conversations.show_turn(conversation_id, user, body.turn)
        return serializer.conversation(conversation_id, user, language_for(request))

    @router.delete("/conversations/{conversation_id}")
    @in_bounded_threadpool
    def delete(conversation_id: str, request: Request) -> dict[str, str]:
        conversations.delete(conversation_id, user_of(request.session))
        return {"status": "deleted"}

    @router.post("/conversations/{conversation_id}/restore")
    @in_bounded_threadpool
    def restore(conversation_id: str, request: Request) -> dict[str, str]:
        conversations.restore(conversation_id, user_of(request.session))
        return {"status": "restored"}

    @router.get("/conversations/{conversation_id}/export", response_model=None)
    @in_bounded_threadpool
    def export(conversation_id: str, request: Request, form: str = "markdown") -> Response:
        found = conversations.view(conversation_id, user_of(request.session))
        name = "conversation.json" if form == "json" else "conversation.md"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        if form == "json":
            return JSONResponse(to_json(found), headers=headers)
        return PlainTextResponse(to_markdown(found), headers=headers, media_type="text/markdown")
