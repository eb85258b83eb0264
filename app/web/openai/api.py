"""The OpenAI-compatible part of the API: `/v1/models` and `/v1/chat/completions`.

`model` is `base`, `live` or a release id (or its beginning). Beyond OpenAI's fields, `ignore_eos`,
`stream_options.include_usage`, `top_k`, `min_p`, `repetition_penalty` and
`chat_template_kwargs.enable_thinking` work as in vLLM; `timeout_seconds` and the type `grammar` of
`response_format` are our own. If the last message is the assistant's, it is continued, as in
Anthropic's API and with vLLM's `continue_final_message`. Calls of tools are parts of the message
beside `content`, and their arguments are valid under the tools' schemas. A completion has the id of
its first stored answer behind a prefix, and each choice has its `answer_id`; feedback names either.
A model's thought is `reasoning_content`, beside `content`, as in DeepSeek's API and llama.cpp; in a
request's messages it is ignored, since no model is shown its earlier thoughts. `completion_request`
defines requests, `completion_documents` responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.answering.answering import BASE, LIVE, RunningAnswer
from app.service import Service
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.openai.chat_body import complete_chat, plausible_form
from app.web.openai.completion_documents import completion_document, completion_events
from app.web.openai.completion_request import CompletionRequest
from app.web.openai.page_tasks import is_page_task
from app.web.response_schemas import ChatCompletion, ModelEntry, ModelList, streamed_or
from app.web.streaming.relay import Relay
from app.web.streaming.relayed_response import relayed_response
from engine.storage import find_digest, folder_of

SUBMIT_THREADS = 8  # each tokenizes a prompt and queues it; waiting happens elsewhere


def openai_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute)
    submitters = ThreadPoolExecutor(SUBMIT_THREADS, thread_name_prefix="burnish-submit")

    @router.get("/models", response_model=ModelList)
    def models() -> dict[str, Any]:
        known = _models(service)
        return {"object": "list", "data": [_model(name, at) for name, at in known.items()]}

    @router.get("/models/{model}", response_model=ModelEntry)
    def model(model: str) -> dict[str, Any]:
        known = _models(service)
        if model in known:
            return _model(model, known[model])
        bundles = service.workspace.home.bundles
        digest = find_digest(bundles, model)
        return _model(digest, known.get(digest, folder_of(bundles, digest).stat().st_mtime))

    @router.post("/chat/completions", response_model=None, responses=streamed_or(ChatCompletion))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await relayed_response(
            request,
            Relay(lambda: service.engine.alive),
            submitters,
            partial(_submit, service, user_of(request.session), request.headers, body),
            document=partial(completion_document, body),
            events=partial(completion_events, body) if body.stream else None,
        )

    return router


def _submit(
    service: Service, user_id: str, headers: Mapping[str, str], body: CompletionRequest
) -> list[RunningAnswer]:
    """Queue the choices; what a chat page asks for itself is not stored."""
    form = plausible_form(service, body)
    messages = body.conversation(form)
    is_stored = not is_page_task(headers, messages)
    return complete_chat(service, user_id, body, form, messages, is_stored=is_stored)


def _models(service: Service) -> dict[str, float]:
    """Return the valid values of `model`, with the time each was made."""
    base = service.workspace.base.folder.stat().st_mtime
    releases = service.workspace.registry.list()
    return {BASE: base, LIVE: base} | {r.bundle: r.created_at for r in releases}


def _model(name: str, created: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created), "owned_by": "burnish"}
