"""`/v1/completions` of the OpenAI-compatible API: texts that follow raw prompts.

OpenAI calls it legacy; evaluation harnesses score given texts by it (`echo` with `logprobs`).
`text_completion_request` defines requests, `text_completion_documents` responses.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fastapi import APIRouter, Request, Response

from app.answering.answering import RunningAnswer
from app.service import Service
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.openai.api import SUBMIT_THREADS
from app.web.openai.text_completion_documents import (
    text_completion_document,
    text_completion_events,
)
from app.web.openai.text_completion_request import TextCompletionRequest
from app.web.response_schemas import TextCompletion, streamed_or
from app.web.streaming.relay import Relay
from app.web.streaming.relayed_response import relayed_response


def text_completions_router(service: Service) -> APIRouter:
    """Return the route, on one running service."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute)
    submitters = ThreadPoolExecutor(SUBMIT_THREADS, thread_name_prefix="burnish-submit-text")

    @router.post("/completions", response_model=None, responses=streamed_or(TextCompletion))
    async def text_completions(body: TextCompletionRequest, request: Request) -> Response:
        return await relayed_response(
            request,
            Relay(lambda: service.engine.alive),
            submitters,
            partial(_submit, service, user_of(request.session), body),
            document=partial(text_completion_document, body),
            events=partial(text_completion_events, body) if body.stream else None,
        )

    return router


def _submit(service: Service, user_id: str, body: TextCompletionRequest) -> list[RunningAnswer]:
    """Queue the choices; errors are raised here, before a status is sent."""
    return service.completions.complete_raw(
        user_id,
        body.prompts(),
        body.samplings(service.chat.sampling()),
        echo=body.echo,
        adapter=service.adapter_named(body.model),
        user=body.user,
        timeout_seconds=body.timeout_seconds,
    )
