"""One answer on its way: queued in the engine, followed as it grows, stored at its end.

The order that matters: an answer is stored before its last words are shown, so that whatever a
person votes on is there. A full disk does not end the chat; the answer then says it was not saved.
Knows nothing of what is asked; `app.conversation` makes the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.running_answers import RunningAnswers
from app.self_consistency import Chains, draw_chains
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, StorageFull
from engine.messages import Message
from engine.prompts.reasoning import Reasoned, split_reasoning
from engine.request import (
    Engine,
    Failed,
    Finished,
    GenerationRequest,
    SamplingParams,
    Stream,
    TextDelta,
    TokenLogprob,
)
from feedback_store.storage.store import FeedbackStore

PARTIAL_SAVE_SECONDS = 1.0
BASE, LIVE = "base", "live"  # names of a release, beside the digests of adapters
NOT_SAVED = "This answer could not be saved; it cannot be voted on."


@dataclass(frozen=True, slots=True)
class AnswerUpdate:
    """The answer as it stands. `status` is "streaming" until the last update, which has `finished`
    or `error`. `logprobs`, where asked for, are of the tokens since the update before.
    `example_ids` are the judged answers that were shown to the model as examples.
    `chains` says how many chains of thought have ended, of how many; `votes` what they led to."""

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
    chains: tuple[int, int] | None = None
    votes: tuple[tuple[str, int], ...] = ()


class RunningAnswer:
    """An answer that the engine has accepted, as the page and the HTTP API follow it.

    Somebody must iterate its updates to their end, once: the first comes before the first token,
    when the answer's start is stored. `cancel`, from any thread, makes the end come within a step.
    """

    def __init__(self, stream: Stream, updates: Iterator[AnswerUpdate]) -> None:
        self._stream = stream
        self._updates = updates

    def __iter__(self) -> Iterator[AnswerUpdate]:
        return self._updates

    def cancel(self) -> None:
        """End the answer early; what has been made is kept."""
        self._stream.cancel()


@dataclass(frozen=True, slots=True)
class Work:
    """One answer to make: what is shown, how it is drawn, and how it is stored.

    `store_turn` stores what was asked and returns its turn's id; None: nothing is stored. Where
    `is_shown`, the answer takes the place of the one that its conversation showed. With
    `grows`, the id of a stored answer that begins with `prefill`, that answer is continued. With
    several `chains` of thought their answers are voted on (`app.self_consistency`).
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
    grows: str | None = None
    is_shown: bool = True
    example_ids: tuple[str, ...] = ()
    chains: int = 1
    thinking: bool | None = None
    remarks: Mapping[str, Any] = field(default_factory=dict)  # stored beside the sampling

    def request(self, adapter: str | None) -> GenerationRequest:
        """What the engine is asked for."""
        return GenerationRequest(
            self.messages,
            self.sampling,
            adapter,
            self.user,
            self.timeout_seconds,
            self.prefill,
            self.thinking,
        )

    @property
    def how(self) -> dict[str, Any]:
        """How the answer is drawn, as it is stored with it."""
        samples = {"samples": self.chains} if self.chains > 1 else {}
        thinking = {} if self.thinking is None else {"thinking": self.thinking}
        return {**self.sampling.as_dict(), **samples, **thinking, **self.remarks}

    @property
    def is_kept(self) -> bool:
        """Whether the answer is stored."""
        return self.grows is not None or self.store_turn is not None

    def whole(self, text: str) -> Reasoned:
        """A finished answer including its prefill."""
        return split_reasoning(self.prefill + text, answer_line=self.answer_line)

    def split(self, text: str, *, finished: bool) -> Reasoned:
        """The answer as it is shown: after its prefill, unless that is the same answer's."""
        return split_reasoning(
            self.prefill + text,
            finished=finished,
            answer_line=self.answer_line,
            given=0 if self.grows else len(self.prefill),
        )


class Answering:
    """Makes answers over one engine and one store."""

    def __init__(self, engine: Engine, slots: AdapterSlots, store: FeedbackStore) -> None:
        self._engine = engine
        self._slots = slots
        self._store = store
        self.running = RunningAnswers()

    def start(self, work: Work) -> RunningAnswer:
        """Queue one answer; raises what the engine refuses with, and `ShuttingDown`."""
        (answer,) = self.start_all([work])
        return answer

    def start_all(self, works: Sequence[Work]) -> list[RunningAnswer]:
        """Queue several answers by one adapter, all or none; each is made while it is iterated.

        The adapter is pinned from an answer's first token to its last.
        """
        with ExitStack() as unless_queued:
            pinned = unless_queued.enter_context(self._pin(works[0].adapter))
            pins = [unless_queued.enter_context(ExitStack()) for _ in works]
            for pin in pins:
                pin.enter_context(self._slots.hold(pinned))
            tokens = [pin.enter_context(self.running.admit()) for pin in pins]
            streams = self._submit(works, pinned)
            for token, stream in zip(tokens, streams, strict=True):
                token.attach(stream)
            kept = [pin.pop_all() for pin in pins]
        return [
            RunningAnswer(stream, self._updates(stream, work, pinned, pin))
            for stream, work, pin in zip(streams, works, kept, strict=True)
        ]

    def _submit(self, works: Sequence[Work], adapter: str | None) -> list[Stream]:
        requests = [work.request(adapter) for work in works]
        if (chains := works[0].chains) > 1:  # of the page alone, which asks for one answer
            return [draw_chains(self._engine, request, chains) for request in requests]
        return list(self._engine.submit_many(requests))

    def _updates(
        self, stream: Stream, work: Work, adapter: str | None, pin: ExitStack
    ) -> Iterator[AnswerUpdate]:
        with pin, _ended(stream):
            yield from self._follow(stream, work, self._begin(work, adapter), adapter)

    def _pin(self, adapter: str | None) -> AbstractContextManager[str | None]:
        return self._slots.pin_live() if adapter == LIVE else self._slots.hold(adapter)

    def _begin(self, work: Work, adapter: str | None) -> str | None:
        """Store the turn and that its answer is being made; None when the disk is full."""
        if work.grows is not None or work.store_turn is None:
            return work.grows
        try:
            return self._store.begin_answer(
                work.store_turn(),
                base_digest=self._engine.base_digest,
                adapter_digest=adapter,
                sampling=work.how,
                seed=work.sampling.seed,
                shown=work.is_shown,
            )
        except StorageFull:
            return None

    def _follow(
        self, stream: Stream, work: Work, answer_id: str | None, adapter: str | None
    ) -> Iterator[AnswerUpdate]:
        """The stored start, then updates that lag one event behind, so that the last one follows
        the commit."""
        text, saved_at = "", time.monotonic()
        first_token_at: float | None = None
        logprobs: tuple[TokenLogprob, ...] = ()
        logprobs_shown = 0
        chains = stream if isinstance(stream, Chains) else None

        def growing() -> AnswerUpdate:
            reasoned = work.split(text, finished=False)
            return AnswerUpdate(
                answer_id,
                reasoned.thought,
                "" if chains else reasoned.answer,
                "streaming",
                work.note,
                adapter=adapter,
                logprobs=logprobs,
                example_ids=work.example_ids,
                chains=(chains.ended, work.chains) if chains else None,
            )

        try:
            yield growing()
            for event in stream:
                if isinstance(event, TextDelta):
                    first_token_at = first_token_at or time.time()
                    yield growing()
                    text += event.text
                    logprobs_shown += len(logprobs)
                    logprobs = event.logprobs
                    if time.monotonic() - saved_at > PARTIAL_SAVE_SECONDS:
                        self._save_partial(answer_id, work.whole(text))
                        saved_at = time.monotonic()
                else:
                    if isinstance(event, Finished):
                        logprobs = event.logprobs[logprobs_shown:]
                    update = replace(
                        self._finish(
                            event, work, answer_id, first_token_at, chains.votes if chains else ()
                        ),
                        adapter=adapter,
                        logprobs=logprobs,
                        chains=(chains.ended, work.chains) if chains else None,
                    )
                    answer_id = None  # stored; nothing left to do below
                    yield update
        finally:
            if answer_id is not None:  # the reader went away
                self._finish(Finished("cancelled", text, 0, 0), work, answer_id, first_token_at)

    def _finish(
        self,
        event: Finished | Failed,
        work: Work,
        answer_id: str | None,
        first_token_at: float | None,
        votes: tuple[tuple[str, int], ...] = (),
    ) -> AnswerUpdate:
        """Store the answer's end, then say it."""
        reasoned = work.split(event.text, finished=True)
        whole = work.whole(event.text)
        failed = isinstance(event, Failed)
        stopped = isinstance(event, Finished) and event.reason == "cancelled"
        update = AnswerUpdate(
            answer_id,
            reasoned.thought,
            reasoned.answer,
            "failed" if failed else "stopped" if stopped else "done",
            str(event.error) if isinstance(event, Failed) else work.note,
            finished=event if isinstance(event, Finished) else None,
            error=event.error if isinstance(event, Failed) else None,
            example_ids=work.example_ids,
            votes=votes,
        )
        if not work.is_kept:
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
                sampling={**work.how, "votes": votes} if votes else None,
            )
        except StorageFull:
            return replace(update, answer_id=None, note=NOT_SAVED)
        return update

    def _save_partial(self, answer_id: str | None, said: Reasoned) -> None:
        if answer_id is None:
            return
        with suppress(StorageFull):  # said once, at the end
            self._store.save_partial(answer_id, said.answer, said.stored_thought)


@contextmanager
def _ended(stream: Stream) -> Iterator[None]:
    """However the block is left, the stream has ended after it."""
    try:
        yield
    finally:
        stream.cancel()
        for _ in stream:
            pass
