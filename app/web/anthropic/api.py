"""`/v1/messages` and `/v1/messages/count_tokens`, for clients of Anthropic's API.

Fields beyond Anthropic's, such as `seed`, are those of `/v1/chat/completions`. `anthropic_request`
defines requests, `anthropic_documents` responses; errors are in Anthropic's format, too
(`error_responses`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fastapi import APIRouter, Request, Response

from app.service import Service
from app.web.anthropic.documents import message_document, message_events
from app.web.anthropic.request import MessageRequest, PromptRequest
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.openai.api import SUBMIT_THREADS
from app.web.openai.chat_body import count_chat_tokens, require_thoughts, submit_chat
from app.web.response_schemas import AnthropicMessage, TokenCount, streamed_or
from app.web.streaming.relay import Relay
from app.web.streaming.relayed_response import relayed_response


def anthropic_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute)
    submitters = ThreadPoolExecutor(SUBMIT_THREADS, thread_name_prefix="burnish-submit-message")

    @router.post("/messages", response_model=None, responses=streamed_or(AnthropicMessage))
    async def messages(body: MessageRequest, request: Request) -> Response:
        require_thoughts(service, body, "thinking")
        return await relayed_response(
            request,
            Relay(lambda: service.engine.alive),
            submitters,
            partial(submit_chat, service, user_of(request.session), body),
            document=partial(message_document, body),
            events=partial(message_events, body) if body.stream else None,
        )

    @router.post("/messages/count_tokens", response_model=TokenCount)
    def count_tokens(body: PromptRequest) -> dict[str, int]:
        require_thoughts(service, body, "thinking")
        return {"input_tokens": count_chat_tokens(service, body)}

    return router
