"""The engine over vLLM: implements `engine.request.Engine` with one or more of its servers.

An adapter's name there is its digest, which is never given to another one, so that vLLM's prefix
cache cannot answer for it. It counts as loaded once every healthy server lists it; a server that
was away gets all adapters before it is asked again. Answers run in one event loop, in a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, aclosing, nullcontext
from pathlib import Path
from typing import Any

import httpx

from engine.errors import (
    BurnishError,
    DeadlineExceeded,
    EngineFailure,
    InvalidInput,
    Overloaded,
    UnknownId,
)
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.calls.formats import CallFormat
from engine.prompts.interface import ChatRenderer
from engine.remote.completion import generation_body, read_logprobs, read_tokens, scoring_bodies
from engine.remote.replica import Replica
from engine.remote.replica_set import REPLICA_LOOK_SECONDS, ReplicaSet
from engine.request import (
    EmbeddingRequest,
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    Score,
    ScoreRequest,
    TextDelta,
    TextEmbedding,
)
from engine.serving.prompt import TokenizedPrompt, fit_prompt, require_context_room
from engine.serving.stream import QueuedStream
from engine.time_slices import YieldToEngine, do_not_yield

REMOTE_CONNECT_SECONDS = 5.0


class RemoteStream(QueuedStream):
    """A stream whose request is ended at once when it is cancelled."""

    task: Future[None] | None = None

    def cancel(self) -> None:
        """See `Stream`."""
        super().cancel()
        if self.task is not None:
            self.task.cancel()


class RemoteEngine:
    """One engine over several servers of one base model."""

    def __init__(
        self,
        base: BaseModel,
        renderer: ChatRenderer,
        urls: Sequence[str],
        *,
        max_streams: int,
        api_key: str | None = None,
        look_seconds: float = REPLICA_LOOK_SECONDS,
    ) -> None:
        """Raises the errors of `ReplicaSet`."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._base, self._renderer = base, renderer
        self._max_streams = max_streams
        self._headers = headers
        self._client = httpx.Client(headers=headers)
        servers = [Replica(url, self._client) for url in urls]
        self._replicas = ReplicaSet(servers, base.digest, look_seconds)
        self.context_tokens = self._replicas.context_tokens
        self._streams: set[RemoteStream] = set()
        self._lock = threading.Lock()  # guards the one above
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="remote-engine", daemon=True)
        self._thread.start()

    @property
    def base_digest(self) -> str:
        """See `Engine`."""
        return self._base.digest

    @property
    def thinks_unasked(self) -> bool | None:
        """See `Engine`."""
        return self._renderer.thinks_unasked

    @property
    def call_format(self) -> CallFormat:
        """See `Engine`."""
        return self._renderer.call_format

    @property
    def active_streams(self) -> int:
        """See `Engine`."""
        return len(self._streams)

    @property
    def alive(self) -> bool:
        """See `Engine`: whether any server can be asked."""
        return not self._closed and bool(self._replicas.healthy)

    def count_prompt_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """See `Engine`."""
        return len(self._renderer.prompt(messages, thinking=thinking))

    def request_tokens(self, request: GenerationRequest) -> int:
        """See `Engine`."""
        return len(fit_prompt(request, self._renderer, self.context_tokens).ids)

    def submit(self, request: GenerationRequest) -> RemoteStream:
        """See `Engine`."""
        return self.submit_many([request])[0]

    def submit_many(self, requests: Sequence[GenerationRequest]) -> list[RemoteStream]:
        """See `Engine`; the servers decide what is batched."""
        if not self.alive:
            raise EngineFailure("no server of the remote engine answers")
        prepared = []
        for request in requests:
            prompt = fit_prompt(request, self._renderer, self.context_tokens)
            limit = min(request.sampling.max_new_tokens, prompt.room)
            ends = sorted(self._renderer.end_ids)
            model = self._model(request.adapter)
            prepared.append((prompt, generation_body(request, model, prompt.ids, limit, ends)))
        streams = [RemoteStream(len(prompt.ids)) for prompt, _ in prepared]
        with self._lock:
            if len(self._streams) + len(streams) > self._max_streams:
                raise Overloaded("the queue is full; try again later")
            self._streams.update(streams)
        for stream, request, (prompt, body) in zip(streams, requests, prepared, strict=True):
            self._start(stream, self._answer(stream, request, prompt, body))
        return streams

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `Engine`."""
        return [self._score(request) for request in requests]

    def embed(self, requests: Sequence[EmbeddingRequest]) -> list[TextEmbedding]:
        """Raises `InvalidInput`: vLLM's server of a chat model computes none."""
        raise InvalidInput("embeddings: not served by a remote engine")

    def background(self) -> AbstractContextManager[YieldToEngine]:
        """See `Engine`: the servers compute elsewhere."""
        return nullcontext(do_not_yield)

    def load_adapter(self, digest: str, folder: Path) -> None:
        """See `Engine`: loaded into every healthy server, or into none where one refuses it.

        Raises `PeerUnavailable` where no server answers.
        """
        self._replicas.load(digest, folder)

    def unload_adapter(self, digest: str) -> None:
        """See `Engine`."""
        self._replicas.unload(digest)

    def close(self) -> None:
        """See `Engine`."""
        self._closed = True
        for stream in list(self._streams):
            stream.put(Failed(EngineFailure("the engine stopped"), ""))
            stream.cancel()
        self._replicas.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._client.close()

    # Answers

    async def _answer(
        self,
        stream: RemoteStream,
        request: GenerationRequest,
        prompt: TokenizedPrompt,
        body: dict[str, Any],
    ) -> None:
        text = self._renderer.detokenizer(request.sampling.stop, prompt.prefill_ids, prompt.opening)
        ends = frozenset() if request.sampling.ignore_eos else self._renderer.end_ids
        count = 0
        reason: FinishReason = "length"
        try:
            async with asyncio.timeout(request.timeout_seconds):
                async with aclosing(self._tokens(body)) as tokens:
                    async for token_id in tokens:
                        count += 1
                        if token_id not in ends:
                            _show(stream, text.push(token_id))
                        if token_id in ends or text.stopped:
                            reason = "stop"
                            break
        except TimeoutError:
            error = DeadlineExceeded("the answer was not done by its deadline")
            stream.put(Failed(error, text.text))
        except asyncio.CancelledError:
            reason = "cancelled"
        except BurnishError as failed:
            stream.put(Failed(failed, text.text))
        except Exception as failed:  # noqa: BLE001 - the task's edge: a stream has always an end
            stream.put(Failed(EngineFailure(f"the remote engine failed: {failed}"), text.text))
        _show(stream, text.finish())
        end = Finished(reason, text.text, len(prompt.ids), count, stop_string=text.stopped_at)
        stream.put(end)  # dropped where the stream has its end

    async def _tokens(self, body: dict[str, Any]) -> AsyncGenerator[int]:
        """Yield the tokens of an answer; another server is asked where one cannot be reached."""
        timeout = httpx.Timeout(None, connect=REMOTE_CONNECT_SECONDS)
        for replica in self._replicas.in_turn():
            begun = False
            try:
                async with (
                    httpx.AsyncClient(headers=self._headers, timeout=timeout) as client,
                    client.stream("POST", f"{replica.url}/v1/completions", json=body) as response,
                ):
                    async for token_ids in read_tokens(response):
                        begun = True
                        for token_id in token_ids:
                            yield token_id
                    return
            except httpx.HTTPError as error:
                replica.healthy = False
                if begun:
                    raise EngineFailure(f"a server of the remote engine died: {error}") from error
        raise EngineFailure("no server of the remote engine answers")

    def _score(self, request: ScoreRequest) -> Score:
        rendered = self._renderer.pair(
            request.messages, request.completion, complete=request.complete
        )
        if not rendered.completion_ids:
            return Score(())
        ids = rendered.input_ids
        require_context_room(len(ids), self.context_tokens)
        model, count = self._model(request.adapter), len(rendered.completion_ids)
        logprobs: list[float] = []
        for body, scored in scoring_bodies(model, ids, count):
            logprobs += read_logprobs(self._complete(body), scored)
        return Score(tuple(logprobs))

    def _complete(self, body: Mapping[str, Any]) -> Any:
        """The whole answer to a request; another server is asked where one cannot be reached."""
        for replica in self._replicas.in_turn():
            try:
                response = self._client.post(
                    f"{replica.url}/v1/completions", json=body, timeout=None
                )
            except httpx.HTTPError:
                replica.healthy = False
                continue
            if not response.is_success:
                raise EngineFailure(f"the remote engine refuses: status {response.status_code}")
            return response.json()
        raise EngineFailure("no server of the remote engine answers")

    def _model(self, adapter: str | None) -> str:
        if adapter is None:
            return self._base.digest
        if adapter not in self._replicas.adapters:
            raise UnknownId(f"no adapter {adapter[:80]} is loaded")
        return adapter

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _start(self, stream: RemoteStream, work: Coroutine[Any, Any, None]) -> None:
        def ended(_task: Future[None]) -> None:
            """Give the stream an end where it was cancelled before its work began."""
            stream.put(Finished("cancelled", "", stream.prompt_tokens, 0))
            with self._lock:
                self._streams.discard(stream)

        task = asyncio.run_coroutine_threadsafe(work, self._loop)
        task.add_done_callback(ended)
        stream.task = task
        if stream.cancelled:
            task.cancel()


def _show(stream: QueuedStream, text: str) -> None:
    if text:
        stream.put(TextDelta(text))
