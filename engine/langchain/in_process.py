"""Answers of an engine in this process, as chunks.

The messages and tools of a request are read as the server reads them. Knows engines and their
events; knows nothing of HTTP. Nothing is stored: votes need a server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Protocol

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import ToolCallChunk

from engine.langchain.interface import ChatRequest
from engine.langchain.messages import answer_chunk, call_chunk, last_chunk
from engine.messages import question_of, require_text, split_prefill, tools_of
from engine.openai_answers import call_id_of, finish_reason_of, logprobs_document
from engine.openai_messages import messages_of
from engine.prompts.reasoning import split_reasoning, without_thoughts
from engine.request import (
    BASE,
    LIVE,
    Engine,
    Failed,
    Finished,
    GenerationRequest,
    Stream,
    StreamEvent,
    TextDelta,
    TokenLogprob,
)
from engine.tools import CallPiece, CallReader, Spoken, WrittenCall, new_call_pieces


class ReleasePins(Protocol):
    """Resolves names of releases, as `engine.adapters.slots.AdapterSlots` does."""

    def pin(self, release: str) -> AbstractContextManager[str | None]:
        """Keep the adapter of a release loaded; raises `UnknownId`."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """Implements `ChunkSource`.

    Without `releases`, `live` is the base model, and any other name that of a loaded adapter.
    """

    engine: Engine
    releases: ReleasePins | None = None

    def stream(self, request: ChatRequest) -> Iterator[AIMessageChunk]:
        """See `ChunkSource`."""
        answer = _Answer(self, request)
        try:
            while (chunks := answer.read()) is not None:
                yield from chunks
        finally:
            answer.close()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[AIMessageChunk, None]:
        """See `ChunkSource`; reading waits in a thread."""
        answer = _Answer(self, request)
        try:
            while (chunks := await asyncio.to_thread(answer.read)) is not None:
                for chunk in chunks:
                    yield chunk
        finally:
            answer.cancel()
            await asyncio.to_thread(answer.close)

    def pin(self, release: str) -> AbstractContextManager[str | None]:
        """Keep the adapter of a release loaded."""
        if self.releases is not None:
            return self.releases.pin(release)
        return nullcontext(None if release in (BASE, LIVE) else release)


class _Answer:
    """One answer, which begins with its first reading. One thread at a time reads it."""

    def __init__(self, source: InProcess, request: ChatRequest) -> None:
        self._source = source
        self._request = request
        self._pins = ExitStack()
        self._stream: Stream | None = None
        self._reader: _EventReader | None = None
        self._cancelled = False
        self._one_reads = threading.Lock()

    def read(self) -> list[AIMessageChunk] | None:
        """The chunks of the next event; None at the end. Raises the answer's error."""
        with self._one_reads:
            if self._stream is None or self._reader is None:
                self._stream, self._reader = self._start()
            if self._cancelled:
                self._stream.cancel()
            event = next(iter(self._stream), None)
            return None if event is None else self._reader.chunks(event)

    def cancel(self) -> None:
        """End the answer within a step; a reading that waits goes on."""
        self._cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    def close(self) -> None:
        """Cancel the answer, wait for its end, and let go of its adapter."""
        self.cancel()
        with self._one_reads, self._pins:
            for _ in self._stream or ():
                pass

    def _start(self) -> tuple[Stream, _EventReader]:
        engine, model = self._source.engine, self._request.options.model
        adapter = self._pins.enter_context(self._source.pin(model))
        generation = generation_request(self._request, adapter)
        call_format = engine.call_format if tools_of(generation.messages) else None
        return engine.submit(generation), _EventReader(generation.prefill, call_format, model)


def generation_request(request: ChatRequest, adapter: str | None) -> GenerationRequest:
    """The request to an engine; raises `InvalidInput` or `InvalidText`."""
    options = request.options
    form = options.form()
    messages, prefill = split_prefill(messages_of(request.messages, form.offered))
    require_text(question_of(messages))
    return GenerationRequest(
        (*without_thoughts(messages[:-1]), messages[-1]),
        options.sampling(form),
        adapter,
        timeout_seconds=options.timeout,
        prefill=prefill,
        thinking=form.thinking(options.enable_thinking),
    )


class _EventReader:
    """Turns the events of one answer into chunks: thought, words and calls apart."""

    def __init__(self, prefill: str, call_format: CallReader | None, model: str) -> None:
        self._prefill = prefill
        self._call_format = call_format
        self._model = model
        self._text = ""
        self._sent_text = self._sent_thought = self._sent_logprobs = 0  # characters, tokens
        self._sent_calls: tuple[WrittenCall, ...] = ()

    def chunks(self, event: StreamEvent) -> list[AIMessageChunk]:
        """The chunks of an event; raises the error of one that failed."""
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, TextDelta):
            self._text += event.text
            return self._new(event.logprobs, finished=False)
        assert isinstance(event, Finished), "a conversation is not echoed"
        self._text = event.text
        rest = self._new(event.logprobs[self._sent_logprobs :], finished=True)
        return [*rest, self._last(event)]

    def _new(self, logprobs: Sequence[TokenLogprob], *, finished: bool) -> list[AIMessageChunk]:
        reasoned = split_reasoning(
            self._prefill + self._text, finished=finished, given=len(self._prefill)
        )
        spoken = (
            self._call_format.read(reasoned.answer, finished=finished)
            if self._call_format
            else Spoken(reasoned.answer)
        )
        thought = reasoned.thought[self._sent_thought :]
        text = spoken.content[self._sent_text :]
        calls = new_call_pieces(spoken.calls, self._sent_calls)
        self._sent_thought, self._sent_text = len(reasoned.thought), len(spoken.content)
        self._sent_calls = spoken.calls
        self._sent_logprobs += len(logprobs)
        if not (text or thought or calls or logprobs):
            return []
        return [answer_chunk(text, thought, map(_call_chunk, calls), logprobs_document(logprobs))]

    def _last(self, event: Finished) -> AIMessageChunk:
        return last_chunk(
            finish_reason_of(event.reason, calls=bool(self._sent_calls)),
            event.prompt_tokens,
            event.completion_tokens,
            event.cached_prompt_tokens,
            model_name=self._model,
        )


def _call_chunk(piece: CallPiece) -> ToolCallChunk:
    call_id = call_id_of(None, piece.index) if piece.name else None
    return call_chunk(piece.index, piece.name or None, piece.arguments, call_id)
