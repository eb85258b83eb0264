"""The API's answers, as its OpenAPI document describes them.

The documents themselves are written elsewhere, field by field; these models only describe them, and
a test compares the two. Errors have one format, `ErrorResponse`, and each group of routes the
statuses that it may answer with. Knows nothing of how a response is made.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Responses = dict[int | str, dict[str, Any]]


class ErrorDetails(BaseModel):
    """An error: one sentence, and its kind."""

    message: str
    type: str


class ErrorResponse(BaseModel):
    """The body of every status from 400 on, but under `/v1/messages`."""

    error: ErrorDetails


class AnthropicErrorResponse(ErrorResponse):
    """The same in Anthropic's format."""

    type: Literal["error"]


ERROR_WORDS = {
    400: "The request is invalid or asks for something that is not supported.",
    401: "Nobody is signed in, or the API key does not work.",
    403: "The request comes from a page of another site, or the person may not use this path.",
    404: "There is nothing of that id, or it is somebody else's.",
    409: "The state of the thing does not allow it.",
    413: "The body is too large, or the prompt cannot fit the context.",
    422: "A text cannot be stored, or a word is none of those that are known.",
    429: "The queue is full, or the person has asked too often.",
    500: "The server failed.",
    503: "The engine or the database is not there.",
    504: "The deadline passed before there was an answer.",
    507: "The disk is full.",
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def error_responses(*statuses: int, body: type[ErrorResponse] = ErrorResponse) -> Responses:
    """Describe the errors of a group of routes, and the format of their bodies."""
    return {
        status: {
            "model": body,
            "description": ERROR_WORDS[status],
            **({"headers": RETRY_AFTER} if status == 429 else {}),
        }
        for status in statuses
    }


def errors_beside_text(*statuses: int) -> Responses:
    """Describe the errors of a route whose response is a text: FastAPI would call them one, too."""
    schema = {"$ref": f"#/components/schemas/{ErrorResponse.__name__}"}
    return {
        status: {
            **{name: of for name, of in described.items() if name != "model"},
            "content": {"application/json": {"schema": schema}},
        }
        for status, described in error_responses(*statuses).items()
    }


ANY_STATUS = (400, 401, 403, 413, 429, 500, 503)
ENGINE_STATUS = (404, 422, 504, 507)
ANY_ERRORS = error_responses(*ANY_STATUS)
STORE_ERRORS = error_responses(404, 422, 507)
ENGINE_ERRORS = error_responses(*ENGINE_STATUS)
METRICS_ERRORS = errors_beside_text(*ANY_STATUS)
MESSAGE_ERRORS = error_responses(*ANY_STATUS, *ENGINE_STATUS, body=AnthropicErrorResponse)


# OpenAI's documents


class ModelEntry(BaseModel):
    """A valid value of `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All valid values of `model`."""

    object: Literal["list"]
    data: list[ModelEntry]


class CachedTokens(BaseModel):
    """The number of the prompt's tokens that were read before."""

    cached_tokens: int


class Usage(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | None = None


class AnswerMessage(BaseModel):
    """The assistant's message; `content` is null where it only calls tools."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str = ""
    tool_calls: list[dict[str, Any]] = []


class CompletionChoice(BaseModel):
    """One answer of a chat completion."""

    index: int
    answer_id: str
    message: AnswerMessage
    logprobs: dict[str, list[dict[str, Any]]] | None
    finish_reason: Literal["stop", "length", "tool_calls", "error"]
    error: str = ""


class ChatCompletion(BaseModel):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class TextChoice(BaseModel):
    """One text of a text completion."""

    index: int
    text: str
    logprobs: dict[str, list[Any]] | None
    finish_reason: Literal["stop", "length", "error"]
    error: str = ""


class TextCompletion(BaseModel):
    """A text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class StoredResponse(BaseModel):
    """A response: its state, its output, and what was asked for (which OpenAI's document has)."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: float | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: dict[str, str] | None
    incomplete_details: dict[str, str] | None
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None


class EmbeddingUsage(BaseModel):
    """Numbers of tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingEntry(BaseModel):
    """A text's vector: numbers, or the base64 of their float32 bytes."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingEntry]
    model: str
    usage: EmbeddingUsage


# Anthropic's documents


class AnthropicUsage(BaseModel):
    """Numbers of tokens; those read from the cache are not among `input_tokens`."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicMessage(BaseModel):
    """A message in Anthropic's format."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    usage: AnthropicUsage


class TokenCount(BaseModel):
    """The number of a prompt's tokens."""

    input_tokens: int


def streamed_or(document: type[BaseModel]) -> Responses:
    """Describe a response that is a document or, with `stream`, server-sent events."""
    return {200: {"model": document, "content": {"text/event-stream": {}}}}


class Readiness(BaseModel):
    """The server's readiness: whether new answers are taken, and the live release."""

    status: Literal["ready", "engine down", "shutting down"]
    live: str | None
