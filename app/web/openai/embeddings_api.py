"""`/v1/embeddings` of the OpenAI-compatible API: texts to vectors of length 1.

`dimensions` is refused: the model was not trained to say the most in its first channels, so that a
shorter vector would be a worse one in silence.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator
from starlette.requests import ClientDisconnect

from app.answering.answering import LIVE
from app.service import Service
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.openai.api import SUBMIT_THREADS
from app.web.openai.raw_prompts import raw_prompts_of
from app.web.openai.sampling_fields import Lenient, refuse_unsupported
from app.web.response_schemas import EmbeddingList
from app.web.streaming.relayed_response import CLIENT_CLOSED, while_connected
from engine.request import TextEmbedding

MAX_INPUTS = 2048  # OpenAI's
UNSUPPORTED_EMBEDDING_FIELDS: Mapping[str, tuple[object, ...]] = {"dimensions": ()}


class EmbeddingsBody(Lenient):
    """The request body. The texts are parsed by the thread that submits the request."""

    model: str = LIVE
    input: Any
    encoding_format: Literal["float", "base64"] = "float"
    user: Annotated[str, Field(max_length=256)] = ""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        return refuse_unsupported(data, UNSUPPORTED_EMBEDDING_FIELDS)


def embeddings_router(service: Service) -> APIRouter:
    """Return the route, on one running service."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute)
    submitters = ThreadPoolExecutor(SUBMIT_THREADS, thread_name_prefix="burnish-embed")

    @router.post("/embeddings", response_model=None, responses={200: {"model": EmbeddingList}})
    async def embeddings(body: EmbeddingsBody, request: Request) -> Response:
        user_id, abandoned = user_of(request.session), threading.Event()

        def embed() -> dict[str, Any]:
            found = service.embeddings.embed(
                user_id,
                raw_prompts_of(body.input, "input", most=MAX_INPUTS),
                adapter=service.adapter_named(body.model),
                user=body.user,
                is_abandoned=abandoned.is_set,
            )
            return _embeddings_document(body, found)

        async def in_thread() -> dict[str, Any]:
            return await asyncio.get_running_loop().run_in_executor(submitters, embed)

        try:
            return JSONResponse(await while_connected(request, in_thread()))
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED)
        finally:
            abandoned.set()

    return router


def _embeddings_document(body: EmbeddingsBody, found: Sequence[TextEmbedding]) -> dict[str, Any]:
    tokens = sum(each.prompt_tokens for each in found)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(each.vector, body)}
            for index, each in enumerate(found)
        ],
        "model": body.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encoded(vector: array[float], body: EmbeddingsBody) -> str | list[float]:
    """The numbers, or the base64 of their float32 bytes, the lowest byte first."""
    if body.encoding_format == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return vector.tolist()
