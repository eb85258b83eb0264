"""The life of one answer: queued in the engine, followed as it grows, stored at its end.

An answer is stored before its last words are shown, so that every answer a person can vote on is
in the store. A full disk does not end the chat; the answer then says that it was not saved. This
module knows nothing of conversations; `app.conversation` makes the requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.canary_routing import CanaryRouter
from app.fixed_answer import FixedAnswer
from app.running_answers import RunningAnswers
from app.self_consistency import Chains, draw_chains
from engine.errors import BurnishError, StorageFull
from engine.messages import Message
from engine.prompts.reasoning import Reasoned, split_reasoning
from engine.request import BASE as BASE  # for the rest of this floor, too
from engine.request import LIVE as LIVE
from engine.request import (
    Engine,
    Failed,
    Finished,
    GenerationRequest,
    PromptRead,
    RawPrompt,
    SamplingParams,
    Stream,
    TextDelta,
    TokenLogprob,
)
from engine.tools import CallReader, Spoken, WrittenCall
from feedback_store.storage.store import FeedbackStore

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


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A request for one answer: its messages, how it is sampled, and how it is stored.

    `store_turn` stores the question and returns the turn's id; with None nothing is stored. Where
    `is_shown`, the answer replaces the one that its conversation showed. `continued_id` is the id
    of a stored answer that begins with `prefill` and is to be continued. With several `chains` of
    thought, their answers are put to a vote (`app.self_consistency`). `call_format` is given where
    the messages offer tools. A raw `prompt` takes the place of the messages; what follows it is not
    split into thought and answer. A `fixed` text is the answer itself, and no model is asked.
    `passages` are those that the messages show (`Grounding.stored`). With a `conversation_id`, the
    live adapter may be a canary's candidate (`app.canary_routing`).
    """

    messages: tuple[Message, ...]
    sampling: SamplingParams
    store_turn: Callable[[], str] | None
    answer_line: bool = False
    note: str = ""
    adapter: str | None = LIVE
    user: str = ""
    timeout_seconds: float | None = None
    prefill: str = ""
    continued_id: str | None = None
    is_shown: bool = True
    example_ids: tuple[str, ...] = ()
    chains: int = 1
    thinking: bool | None = None
    call_format: CallReader | None = None
    prompt: RawPrompt | None = None
    echo: bool = False
    fixed: str = ""
    passages: tuple[Mapping[str, Any], ...] | None = None
    conversation_id: str | None = None
    extra_sampling: Mapping[str, Any] = field(default_factory=dict)  # stored beside the sampling

    def for_engine(self, adapter: str | None) -> GenerationRequest:
        """Return the request to the engine, under one adapter."""
        return GenerationRequest(
            self.messages,
            self.sampling,
            adapter,
            self.user,
            self.timeout_seconds,
            self.prefill,
            self.thinking,
            self.prompt,
            self.echo,
        )

    @property
    def stored_sampling(self) -> dict[str, Any]:
        """The sampling parameters that are stored with the answer."""
        samples = {"samples": self.chains} if self.chains > 1 else {}
        thinking = {} if self.thinking is None else {"thinking": self.thinking}
        return {**self.sampling.as_dict(), **samples, **thinking, **self.extra_sampling}

    @property
    def is_stored(self) -> bool:
        """Whether the answer is stored."""
        return self.continued_id is not None or self.store_turn is not None

    def split_whole(self, text: str) -> Reasoned:
        """Split a finished answer, its prefill included, into thought and answer."""
        return split_reasoning(self.prefill + text, answer_line=self.answer_line)

    def split(self, text: str, *, finished: bool) -> Reasoned:
        """Split the text as it is shown: without the prefill, unless an answer is continued."""
        if self.prompt is not None:
            return Reasoned("", text)
        return split_reasoning(
            self.prefill + text,
            finished=finished,
            answer_line=self.answer_line,
            given=0 if self.continued_id else len(self.prefill),
        )

    def spoken(self, reasoned: Reasoned, *, finished: bool) -> Spoken:
        """Split what follows the thought into words and calls."""
        if self.call_format is None:
            return Spoken(reasoned.answer)
        return self.call_format.read(reasoned.answer, finished=finished)


class Answering:
    """Generates and stores answers with one engine and one store."""

    def __init__(self, engine: Engine, router: CanaryRouter, store: FeedbackStore) -> None:
        self._engine = engine
        self._router = router
        self._store = store
        self.running = RunningAnswers()

    @property
    def call_format(self) -> CallReader:
        """How answers to messages that offer tools write their calls."""
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
        first = requests[0]
        with ExitStack() as unless_queued:
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
            RunningAnswer(stream, self._updates(stream, request, pinned, pin))
            for stream, request, pin in zip(streams, requests, transferred, strict=True)
        ]

    def _submit(self, requests: Sequence[AnswerRequest], adapter: str | None) -> list[Stream]:
        if requests[0].fixed:  # only the page's questions about documents have such an answer
            return [FixedAnswer(request.fixed) for request in requests]
        generations = [request.for_engine(adapter) for request in requests]
        if (chains := requests[0].chains) > 1:  # only the page asks for chains, for one answer
            return [draw_chains(self._engine, generation, chains) for generation in generations]
        return list(self._engine.submit_many(generations))

    def _updates(
        self, stream: Stream, request: AnswerRequest, adapter: str | None, pin: ExitStack
    ) -> Iterator[AnswerUpdate]:
        with pin, _ending(stream):
            yield from self._follow(stream, request, self._begin(request, adapter), adapter)

    def pin(self, adapter: str | None) -> AbstractContextManager[str | None]:
        """Yield the adapter of that name or digest, which stays loaded while the block runs."""
        return self._router.pin(adapter)

    def _begin(self, request: AnswerRequest, adapter: str | None) -> str | None:
        """Store the turn and the start of its answer; returns None when the disk is full."""
        if request.continued_id is not None or request.store_turn is None:
            return request.continued_id
        try:
            return self._store.begin_answer(
                request.store_turn(),
                base_digest=self._engine.base_digest,
                adapter_digest=adapter,
                sampling=request.stored_sampling,
                seed=request.sampling.seed,
                shown=request.is_shown,
            )
        except StorageFull:
            return None

    def _follow(
        self, stream: Stream, request: AnswerRequest, answer_id: str | None, adapter: str | None
    ) -> Iterator[AnswerUpdate]:
        """Yield the stored start, then the updates, one event late: the last one thus follows the
        commit of the answer's end."""
        text, saved_at = "", time.monotonic()
        first_token_at: float | None = None
        logprobs: tuple[TokenLogprob, ...] = ()
        logprobs_shown = 0
        chains = stream if isinstance(stream, Chains) else None

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
            )

        try:
            yield current()
            for event in stream:
                if isinstance(event, PromptRead):
                    yield replace(current(), prompt=event)
                elif isinstance(event, TextDelta):
                    first_token_at = first_token_at or time.time()
                    yield current()
                    text += event.text
                    logprobs_shown += len(logprobs)
                    logprobs = event.logprobs
                    if time.monotonic() - saved_at > PARTIAL_SAVE_SECONDS:
                        self._save_partial(answer_id, request.split_whole(text))
                        saved_at = time.monotonic()
                else:
                    if isinstance(event, Finished):
                        logprobs = event.logprobs[logprobs_shown:]
                    update = replace(
                        self._finish(
                            event,
                            request,
                            answer_id,
                            first_token_at,
                            chains.votes if chains else (),
                        ),
                        adapter=adapter,
                        logprobs=logprobs,
                        chains=(chains.ended, request.chains) if chains else None,
                    )
                    answer_id = None  # stored: nothing is left to do below
                    yield update
        finally:
            if answer_id is not None:  # the caller stopped iterating
                self._finish(Finished("cancelled", text, 0, 0), request, answer_id, first_token_at)

    def _finish(
        self,
        event: Finished | Failed,
        request: AnswerRequest,
        answer_id: str | None,
        first_token_at: float | None,
        votes: tuple[tuple[str, int], ...] = (),
    ) -> AnswerUpdate:
        """Store the answer's end and return its last update."""
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
                sampling={**request.stored_sampling, "votes": votes} if votes else None,
            )
        except StorageFull:
            return replace(update, answer_id=None, note=NOT_SAVED)
        return update

    def _save_partial(self, answer_id: str | None, partial: Reasoned) -> None:
        if answer_id is None:
            return
        with suppress(StorageFull):  # reported once, at the end
            self._store.save_partial(answer_id, partial.answer, partial.stored_thought)


@contextmanager
def _ending(stream: Stream) -> Iterator[None]:
    """Cancel and drain the stream when the block is left."""
    try:
        yield
    finally:
        stream.cancel()
        for _ in stream:
            pass
