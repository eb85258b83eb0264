"""`/v1/responses` of the OpenAI-compatible API: answers whose conversation the server keeps.

A response that names the one before as `previous_response_id` goes on from it, in the same stored
conversation. Any stored answer of the caller's can be retrieved and followed. `responses_request`
defines requests, `responses_documents` responses.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.answering.answering import RunningAnswer
from app.service import Service
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.openai.api import SUBMIT_THREADS
from app.web.openai.chat_body import complete_chat, plausible_form, require_thoughts
from app.web.response_schemas import StoredResponse, streamed_or
from app.web.responses.documents import response_document, response_events
from app.web.responses.request import ResponseRequest
from app.web.responses.stored import retrieved_response
from app.web.streaming.relay import Relay
from app.web.streaming.relayed_response import relayed_response
from engine.errors import InvalidInput


def responses_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute)
    submitters = ThreadPoolExecutor(SUBMIT_THREADS, thread_name_prefix="burnish-submit-response")

    @router.post("/responses", response_model=None, responses=streamed_or(StoredResponse))
    async def responses(body: ResponseRequest, request: Request) -> Response:
        require_thoughts(service, body, "reasoning.effort")
        return await relayed_response(
            request,
            Relay(lambda: service.engine.alive),
            submitters,
            partial(_submit, service, user_of(request.session), body),
            document=partial(response_document, body),
            events=partial(response_events, body) if body.stream else None,
        )

    @router.get(
        "/responses/{response_id}", response_model=None, responses={200: {"model": StoredResponse}}
    )
    def response(response_id: str, request: Request, stream: bool = False) -> dict[str, Any]:
        if stream:
            raise InvalidInput("stream: a stored response is sent at once")
        found = service.completions.stored(user_of(request.session), response_id)
        return retrieved_response(found)

    return router


def _submit(service: Service, user_id: str, body: ResponseRequest) -> list[RunningAnswer]:
    """Queue the answer; errors are raised here, before a status is sent."""
    follows = None
    if body.previous_response_id is not None:
        follows = service.completions.stored(user_id, body.previous_response_id)
    form = plausible_form(service, body)
    messages = body.conversation(form, follows.as_history() if follows else ())
    names_release = "model" in body.model_fields_set
    return complete_chat(
        service,
        user_id,
        body,
        form,
        messages,
        follows=follows,
        has_instructions=bool(body.instructions),
        is_stored=body.store,
        drops_oldest=body.truncation == "auto",
        in_canary=body.store and not names_release,
    )
