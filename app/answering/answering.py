"""The life of one answer: queued in the engine, followed as it grows, stored at its end.

The start of an answer is stored before its first word is shown, so that every answer a person can
vote on is in the store, and its end before the page is told of it. Words are shown as they come. A
full disk does not end the chat; the answer then says that it was not saved. This module knows
nothing of conversations; `app.answering.conversation` makes the requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from app.answering.answer_request import AnswerRequest
from app.answering.canary_routing import CanaryRouter
from app.answering.fixed_answer import FixedAnswer
from app.answering.running_answers import RunningAnswers
from app.answering.self_consistency import Chains, draw_chains
from app.metrics import MeasuredAnswer, Metrics
from app.tools.called import CalledTool
from engine.errors import BurnishError, Conflict, StorageFull
from engine.messages import Message
from engine.request import BASE as BASE  # for the rest of this floor, too
from engine.request import LIVE as LIVE
from engine.request import (
    Engine,
    Failed,
    Finished,
    GenerationRequest,
    PromptRead,
    Stream,
    TextDelta,
    TokenLogprob,
)
from engine.tools import CallReader, WrittenCall
from feedback_store.storage.store import FeedbackStore

if TYPE_CHECKING:
    from app.tools.agent import Agent

PARTIAL_SAVE_SECONDS = 1.0
NOT_SAVED = "This answer could not be saved; it cannot be voted on."


@dataclass(frozen=True, slots=True)
class AnswerUpdate:
    """The state of an answer at one moment.

    `status` is "streaming" until the last update, which has `finished` or `error`. `logprobs`,
    where requested, cover the tokens since the previous update. `example_ids` are the judged
    answers that were shown to the model as examples. `prompt` is what `echo` asked for: one update
    before the first token has it. `chains` is (ended, total) of the chains of thought; `votes` has
    each of their answers with its number of votes. `calls` are those of the tools that were
    offered; `text` is without their markup. `prompt_tokens` are known from the first update on.
    `passages` of documents, where the question was asked with some, come with the last update.
    `called` are the tools that Burnish itself has called for the answer.
    """

    answer_id: str | None
    thought: str
    text: str
    status: Literal["streaming", "done", "stopped", "failed"]
    note: str = ""
    finished: Finished | None = None
    adapter: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    error: BurnishError | None = None
    example_ids: tuple[str, ...] = ()
    prompt: PromptRead | None = None
    chains: tuple[int, int] | None = None
    votes: tuple[tuple[str, int], ...] = ()
    calls: tuple[WrittenCall, ...] = ()
    prompt_tokens: int = 0
    passages: tuple[Mapping[str, Any], ...] | None = None
    called: tuple[CalledTool, ...] = ()


class RunningAnswer:
    """An answer that the engine has accepted, for the page and the HTTP API to follow.

    The caller must iterate over its updates once, to their end. The first update comes before the
    first token, when the answer's start is stored. `cancel` may be called from any thread and ends
    the answer within a step.
    """

    def __init__(self, stream: Stream, updates: Iterator[AnswerUpdate]) -> None:
        self._stream = stream
        self._updates = updates

    def __iter__(self) -> Iterator[AnswerUpdate]:
        return self._updates

    def cancel(self) -> None:
        """End the answer early; the text so far is kept."""
        self._stream.cancel()


class Answering:
    """Generates and stores answers with one engine and one store."""

    def __init__(
        self, engine: Engine, router: CanaryRouter, store: FeedbackStore, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._router = router
        self._store = store
        self._metrics = metrics
        self.running = RunningAnswers()

    @property
    def call_format(self) -> CallReader:
        """The format of calls in answers to messages that offer tools."""
        return self._engine.call_format

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return self._engine.context_tokens

    def count_prompt_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Return the tokens of a rendered prompt, however long."""
        return self._engine.count_prompt_tokens(messages, thinking)

    def request_tokens(self, request: GenerationRequest) -> int:
        """Return the tokens of a request's prompt; raises `PromptTooLong`."""
        return self._engine.request_tokens(request)

    def start(self, request: AnswerRequest) -> RunningAnswer:
        """Queue one answer; raises `ShuttingDown` and the errors of `Engine.submit_many`."""
        (answer,) = self.start_all([request])
        return answer

    def start_all(self, requests: Sequence[AnswerRequest]) -> list[RunningAnswer]:
        """Queue several answers under one adapter, all or none.

        Each answer must be iterated over. The adapter stays pinned until the last one has ended.
        Raises `ShuttingDown` and the errors of `Engine.submit_many`.
        """
        first, asked_at = requests[0], time.monotonic()
        with self._metrics.counting_refusals(len(requests)), ExitStack() as unless_queued:
            pinned = unless_queued.enter_context(
                self._router.pin(first.adapter, first.conversation_id)
            )
            pins = [unless_queued.enter_context(ExitStack()) for _ in requests]
            for pin in pins:
                pin.enter_context(self._router.hold(pinned))
            tokens = [pin.enter_context(self.running.admit()) for pin in pins]
            streams = self._submit(requests, pinned)
            for token, stream in zip(tokens, streams, strict=True):
                token.attach(stream)
            transferred = [pin.pop_all() for pin in pins]
        return [
            RunningAnswer(stream, self._updates(stream, request, pinned, pin, asked_at))
            for stream, request, pin in zip(streams, requests, transferred, strict=True)
        ]

    def _submit(self, requests: Sequence[AnswerRequest], adapter: str | None) -> list[Stream]:
        if requests[0].fixed:  # only the page's questions about documents have such an answer
            return [FixedAnswer(request.fixed) for request in requests]
        generations = [request.for_engine(adapter) for request in requests]
        if offer := requests[0].tool_offer:  # only the page's questions have one
            from app.tools.agent import Agent  # it imports much of LangChain

            return [Agent(self._engine, generations[0], offer)]
        if (chains := requests[0].chains) > 1:  # only the page asks for chains, for one answer
            return [draw_chains(self._engine, generation, chains) for generation in generations]
        return list(self._engine.submit_many(generations))

    def _updates(
        self,
        stream: Stream,
        request: AnswerRequest,
        adapter: str | None,
        pin: ExitStack,
        asked_at: float,
    ) -> Iterator[AnswerUpdate]:
        with pin, _ending(stream), self._metrics.answer(asked_at) as measured:
            answer_id = self._begin(request, adapter)
            yield from self._follow(stream, measured, request, answer_id, adapter)

    def pin(self, adapter: str | None) -> AbstractContextManager[str | None]:
        """Yield the adapter of that name or digest, which stays loaded while the block runs."""
        return self._router.pin(adapter)

    def _begin(self, request: AnswerRequest, adapter: str | None) -> str | None:
        """Store the turn and the start of its answer; returns None when the disk is full."""
        if request.continued_id is not None or request.turn is None:
            return request.continued_id
        try:
            return self._store.begin_answer(
                request.turn(),
                base_digest=self._engine.base_digest,
                adapter_digest=adapter,
                sampling=request.stored_sampling(),
                seed=request.sampling.seed,
                shown=request.is_shown,
            )
        except StorageFull:
            return None

    def _follow(
        self,
        stream: Stream,
        measured: MeasuredAnswer,
        request: AnswerRequest,
        answer_id: str | None,
        adapter: str | None,
    ) -> Iterator[AnswerUpdate]:
        """Yield the stored start, then the updates; the last one follows the commit of the end."""
        text, saved_at = "", time.monotonic()
        first_token_at: float | None = None
        logprobs: tuple[TokenLogprob, ...] = ()
        logprobs_shown = 0
        chains = stream if isinstance(stream, Chains) else None
        agent = cast("Agent", stream) if request.tool_offer else None

        def current() -> AnswerUpdate:
            reasoned = request.split(text, finished=False)
            spoken = request.spoken(reasoned, finished=False)
            return AnswerUpdate(
                answer_id,
                reasoned.thought,
                "" if chains else spoken.content,
                "streaming",
                request.note,
                adapter=adapter,
                logprobs=logprobs,
                example_ids=request.example_ids,
                chains=(chains.ended, request.chains) if chains else None,
                calls=spoken.calls,
                prompt_tokens=stream.prompt_tokens,
                called=(*request.called, *(agent.called if agent else ())),
            )

        try:
            yield current()
            for event in stream:
                measured.take(event)
                if isinstance(event, PromptRead):
                    yield replace(current(), prompt=event)
                elif isinstance(event, TextDelta):
                    first_token_at = first_token_at or time.time()
                    text = agent.text if agent else text + event.text
                    logprobs_shown += len(event.logprobs)
                    logprobs = event.logprobs
                    if time.monotonic() - saved_at > PARTIAL_SAVE_SECONDS:
                        if not self._save_partial(answer_id, request, text, agent):
                            stream.cancel()
                        saved_at = time.monotonic()
                    yield current()
                else:
                    if isinstance(event, Finished):
                        logprobs = event.logprobs[logprobs_shown:]
                    update = replace(
                        self._finish(event, request, answer_id, first_token_at, stream),
                        adapter=adapter,
                        logprobs=logprobs,
                        chains=(chains.ended, request.chains) if chains else None,
                    )
                    answer_id = None  # stored: nothing is left to do below
                    yield update
        finally:
            if answer_id is not None:  # the caller stopped iterating
                end = Finished("cancelled", text, 0, 0)
                self._finish(end, request, answer_id, first_token_at, stream)

    def _finish(
        self,
        event: Finished | Failed,
        request: AnswerRequest,
        answer_id: str | None,
        first_token_at: float | None,
        stream: Stream,
    ) -> AnswerUpdate:
        """Store the answer's end and return its last update."""
        votes = stream.votes if isinstance(stream, Chains) else ()
        called = cast("Agent", stream).called if request.tool_offer else ()
        reasoned = request.split(event.text, finished=True)
        spoken = request.spoken(reasoned, finished=True)
        whole = request.split_whole(event.text)
        failed = isinstance(event, Failed)
        stopped = isinstance(event, Finished) and event.reason == "cancelled"
        update = AnswerUpdate(
            answer_id,
            reasoned.thought,
            spoken.content,
            "failed" if failed else "stopped" if stopped else "done",
            str(event.error) if isinstance(event, Failed) else request.note,
            finished=event if isinstance(event, Finished) else None,
            error=event.error if isinstance(event, Failed) else None,
            example_ids=request.example_ids,
            votes=votes,
            calls=spoken.calls,
            passages=request.passages,
            called=(*request.called, *called),
        )
        if not request.is_stored:
            return update
        try:
            if answer_id is None:
                raise StorageFull(NOT_SAVED)
            self._store.finish_answer(
                answer_id,
                status=update.status,
                text=whole.answer,
                thought=whole.stored_thought,
                complete=isinstance(event, Finished) and event.reason == "stop",
                prompt_tokens=event.prompt_tokens if isinstance(event, Finished) else None,
                completion_tokens=event.completion_tokens if isinstance(event, Finished) else None,
                error=str(event.error) if isinstance(event, Failed) else None,
                first_token_at=first_token_at,
                sampling=request.stored_sampling(called, votes) if votes or called else None,
            )
        except (StorageFull, Conflict):
            return replace(update, answer_id=None, note=NOT_SAVED)
        return update

    def _save_partial(
        self, answer_id: str | None, request: AnswerRequest, text: str, agent: Agent | None
    ) -> bool:
        """Store the text so far; returns whether the answer shall go on."""
        if answer_id is None:
            return True
        partial = request.split_whole(text)
        sampling = request.stored_sampling(agent.called) if agent and agent.called else None
        with suppress(StorageFull):  # reported once, at the end
            return self._store.save_partial(
                answer_id, partial.answer, partial.stored_thought, sampling
            )
        return True


@contextmanager
def _ending(stream: Stream) -> Iterator[None]:
    """Cancel and drain the stream when the block is left."""
    try:
        yield
    finally:
        stream.cancel()
        for _ in stream:
            pass
