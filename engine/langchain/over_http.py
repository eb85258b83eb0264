"""Answers of a server by its URL, as chunks: OpenAI's `/v1/chat/completions`, streamed.

Each answer has a connection of its own, so that closing it ends the answer, and so that one source
serves any thread and event loop. Knows the wire format; knows nothing of engines.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from langchain_core.messages import AIMessageChunk

from engine import errors
from engine.errors import BurnishError, DeadlineExceeded, EngineFailure, InvalidInput, Overloaded
from engine.langchain.interface import ChatRequest
from engine.langchain.messages import answer_chunk, call_chunk, last_chunk

CONNECT_SECONDS = 10.0
GRACE_SECONDS = 10.0  # for the server to say itself that an answer's deadline is over
DATA, DONE = "data: ", "[DONE]"  # of server-sent events
ERROR_TYPES: Mapping[str, type[BurnishError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    # One has problems instead of a sentence; its sentence is that of an `InvalidInput`
    if isinstance(kind, type)
    and issubclass(kind, BurnishError)
    and kind is not errors.InvalidBundle
}


class OverHttp:
    """Implements `ChunkSource`. `base_url` is the server's address, with `/v1` or without it."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        address = _address(base_url)
        self._url = address.copy_with(path=address.path.rstrip("/") + "/chat/completions")
        self._place = f"{address.scheme}://{address.netloc.decode()}"
        key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._headers = {"Content-Type": "application/json", **key}
        # Made once: a context of TLS takes 10 ms
        self._tls = httpx.create_ssl_context() if address.scheme == "https" else False

    def stream(self, request: ChatRequest) -> Iterator[AIMessageChunk]:
        """See `ChunkSource`."""
        reader = _EventReader(request.options.model)
        with (
            self._translated_errors(),
            httpx.Client(verify=self._tls, timeout=_timeout(request)) as client,
            client.stream("POST", self._url, **self._content(request)) as response,
        ):
            if response.is_error:
                response.read()
                raise response_error(response)
            for line in response.iter_lines():
                yield from reader.chunks(line)
            reader.require_end()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[AIMessageChunk, None]:
        """See `ChunkSource`."""
        reader = _EventReader(request.options.model)
        with self._translated_errors():
            async with (
                httpx.AsyncClient(verify=self._tls, timeout=_timeout(request)) as client,
                client.stream("POST", self._url, **self._content(request)) as response,
            ):
                if response.is_error:
                    await response.aread()
                    raise response_error(response)
                async for line in response.aiter_lines():
                    for chunk in reader.chunks(line):
                        yield chunk
                reader.require_end()

    def _content(self, request: ChatRequest) -> dict[str, Any]:
        body = {
            **request.options.body(),
            "messages": request.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        # Half a surrogate pair is escaped, for the server to refuse
        return {"content": json.dumps(body).encode(), "headers": self._headers}

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise EngineFailure(f"no server answers at {self._place}") from None
        except httpx.TimeoutException:
            raise DeadlineExceeded("the answer was not done by its deadline") from None
        except httpx.TransportError:
            raise EngineFailure(f"the connection to {self._place} broke off") from None


def response_error(response: httpx.Response) -> BurnishError:
    """The error that a response describes, with the server's sentence."""
    try:
        said = response.json()["error"]
        kind, sentence = said["type"], str(said["message"])
    except (ValueError, KeyError, TypeError):
        kind, sentence = "", f"the server answered with status {response.status_code}"
    otherwise = EngineFailure if response.is_server_error else InvalidInput
    retry_after = response.headers.get("retry-after", "")
    return _error(ERROR_TYPES.get(kind, otherwise), sentence, retry_after)


def _error(kind: type[BurnishError], sentence: str, retry_after: str = "") -> BurnishError:
    if issubclass(kind, Overloaded) and retry_after.isdigit():
        return kind(sentence, retry_after_seconds=float(retry_after))
    return kind(sentence)


def _address(base_url: str) -> httpx.URL:
    """The address of the server's `/v1`."""
    try:
        address = httpx.URL(base_url)
    except httpx.InvalidURL:
        raise InvalidInput("base_url is not a URL") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise InvalidInput("base_url must begin with http:// or https:// and name a host")
    if address.userinfo or address.query or address.fragment:
        raise InvalidInput("base_url may have no user, query or fragment; use api_key for a key")
    path = address.path.rstrip("/")
    return address.copy_with(path=path if path.endswith("/v1") else f"{path}/v1")


def _timeout(request: ChatRequest) -> httpx.Timeout:
    limit = request.options.timeout
    return httpx.Timeout(None if limit is None else limit + GRACE_SECONDS, connect=CONNECT_SECONDS)


class _EventReader:
    """Turns the lines of one streamed answer into chunks."""

    def __init__(self, model: str) -> None:
        self._end: dict[str, Any] = {"finish_reason": None, "model_name": model}
        self._usage: Mapping[str, Any] = {}
        self._is_done = False

    def chunks(self, line: str) -> Iterator[AIMessageChunk]:
        """The chunks of a line; raises the error that it describes."""
        if not line.startswith(DATA):
            return
        data = line.removeprefix(DATA)
        if data == DONE:
            self._is_done = True
            yield self._last()
            return
        document = json.loads(data)
        if said := document.get("error"):
            raise _error(ERROR_TYPES.get(said["type"], EngineFailure), said["message"])
        self._usage = document.get("usage") or self._usage
        for choice in document["choices"]:
            self._note(document, choice)
            yield from _chunks(choice)

    def require_end(self) -> None:
        """Raise `EngineFailure` if the stream ended before the answer did."""
        if not self._is_done:
            raise EngineFailure("the server's answer broke off")

    def _note(self, document: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        if choice.get("finish_reason"):
            found = {**document, **choice}
            names = ("id", "answer_id", "system_fingerprint", "finish_reason")
            self._end |= {name: found[name] for name in names if found.get(name)}

    def _last(self) -> AIMessageChunk:
        details = self._usage.get("prompt_tokens_details") or {}
        return last_chunk(
            prompt_tokens=self._usage.get("prompt_tokens", 0),
            completion_tokens=self._usage.get("completion_tokens", 0),
            cached=details.get("cached_tokens", 0),
            **self._end,
        )


def _chunks(choice: Mapping[str, Any]) -> Iterator[AIMessageChunk]:
    """The chunk of a delta, if it says anything."""
    delta = choice.get("delta") or {}
    calls = [
        call_chunk(
            call["index"],
            call["function"].get("name"),
            call["function"]["arguments"],
            call.get("id"),
        )
        for call in delta.get("tool_calls") or ()
    ]
    said = delta.get("content") or "", delta.get("reasoning_content") or ""
    logprobs = (choice.get("logprobs") or {}).get("content") or ()
    if any(said) or calls or logprobs:
        yield answer_chunk(*said, calls, logprobs)
