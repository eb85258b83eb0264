"""One chat turn, without any web framework: ask, stream, store, vote.

The order that matters: an answer is stored before its last words are shown, so that whatever a
person votes on is there. A full disk does not end the chat; the answer then says it was not saved.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from app.running_answers import RunningAnswers, StopButton
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, PromptTooLong, StorageFull
from engine.messages import Message, question_of, require_text, split_prefill
from engine.prompts.examples import Example
from engine.prompts.modes import PromptTemplate, has_answer_line, make_template
from engine.prompts.reasoning import Reasoned, split_reasoning, without_thoughts
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
from feedback_store.store import FeedbackStore, new_id

PARTIAL_SAVE_SECONDS = 1.0
TRIMMED = "The beginning of this conversation no longer fits and was left out."
LIVE = "live"
AS_GIVEN = PromptTemplate("plain", "", "", ())  # the HTTP API's callers bring their own messages
NOT_SAVED = "This answer could not be saved; it cannot be voted on."


@dataclass(frozen=True, slots=True)
class AnswerUpdate:
    """The answer as it stands. `status` is "streaming" until the last update, which has `finished`
    or `error`. `logprobs`, where asked for, are of the tokens since the update before."""

    answer_id: str | None
    thought: str
    text: str
    status: Literal["streaming", "done", "stopped", "failed"]
    note: str = ""
    finished: Finished | None = None
    adapter: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    error: BurnishError | None = None


class QueuedAnswer:
    """An answer the engine has taken. Somebody must iterate it to its end, once; `cancel`, from any
    thread, makes that end come within a step."""

    def __init__(self, stream: Stream, updates: Iterator[AnswerUpdate]) -> None:
        self._stream = stream
        self._updates = updates

    def __iter__(self) -> Iterator[AnswerUpdate]:
        return self._updates

    def cancel(self) -> None:
        """End the answer early; what has been made is kept."""
        self._stream.cancel()


class Chat:
    """The conversations of all users over one engine and one store."""

    def __init__(
        self,
        engine: Engine,
        slots: AdapterSlots,
        store: FeedbackStore,
        *,
        examples: Callable[[], tuple[Example, ...]],
        system_prompt: str,
        sampling: SamplingParams,
        max_message_chars: int,
    ) -> None:
        self._engine = engine
        self._slots = slots
        self._store = store
        self._examples = examples
        self._system_prompt = system_prompt
        self._sampling = sampling
        self._max_message_chars = max_message_chars
        self.running = RunningAnswers()

    def ask(
        self,
        user_id: str,
        question: str,
        *,
        conversation_id: str,
        parent_answer_id: str | None = None,
        mode: str = "plain",
        sampling: SamplingParams | None = None,
        stop: StopButton | None = None,
    ) -> Iterator[AnswerUpdate]:
        """Answer a question that follows `parent_answer_id` in a conversation.

        Raises `InvalidText`, `PromptTooLong`, `UnknownId`, `Overloaded` or `ShuttingDown` at the
        first step, with nothing stored then.
        """
        require_text(question, limit_chars=self._max_message_chars)
        sampling = self._seeded(sampling)
        template = make_template(mode, self._examples(), self._system_prompt)
        history = self._store.history(parent_answer_id, user_id)
        messages, trimmed = self._fit(template, history, question, sampling.max_new_tokens)

        def store_turn() -> str:
            return self._store.add_turn(
                user_id=user_id, question=question, template=template,
                conversation_id=conversation_id, parent_answer_id=parent_answer_id,
                prompt=messages if trimmed else None,
            ).id  # fmt: skip

        note = TRIMMED * trimmed
        work = _Work(messages, sampling, store_turn, template.has_answer_line, note, user=user_id)
        yield from self._run(work, stop)

    def regenerate(
        self,
        user_id: str,
        answer_id: str,
        *,
        to_compare: bool = False,
        sampling: SamplingParams | None = None,
        stop: StopButton | None = None,
    ) -> Iterator[AnswerUpdate]:
        """Another answer to the same turn: a sibling, for the very same prompt.

        That a person asked for it is noted on the first one, unless the two are to be compared,
        which says nothing of either yet.
        """
        turn, messages = self._store.shown_prompt(answer_id, user_id)

        def begin() -> str:
            if not to_compare:
                self._store.note(answer_id, user_id, "regeneration")
            return turn.id

        answer_line = has_answer_line(turn.mode)
        work = _Work(messages, self._seeded(sampling), begin, answer_line, user=user_id)
        yield from self._run(work, stop)

    def complete(
        self,
        user_id: str,
        messages: tuple[Message, ...],
        samplings: Sequence[SamplingParams],
        *,
        adapter: str | None = LIVE,
        user: str = "",
        timeout_seconds: float | None = None,
    ) -> list[QueuedAnswer]:
        """Queue one answer for each of `samplings`, all or none, to messages given as they are.

        For the HTTP API: a conversation of its own, of one turn with sibling answers. The thoughts
        of earlier answers are left out. Where the last message is the assistant's it is continued:
        updates have what follows it, the store gets the whole. `user` is whom the caller asks for.
        Raises `InvalidInput`, `InvalidText`, `PromptTooLong`, `UnknownId`, `Overloaded` or
        `ShuttingDown` with nothing stored then. Each answer's first update comes before its first
        token.
        """
        messages, prefill = split_prefill(messages)
        question = require_text(question_of(messages), limit_chars=self._max_message_chars)
        messages = (*without_thoughts(messages[:-1]), messages[-1])

        def store_turn() -> str:
            return self._store.add_turn(
                user_id=user_id, question=question, template=AS_GIVEN,
                conversation_id=new_id(), prompt=messages,
            ).id  # fmt: skip

        turn = _Once(store_turn)
        asker = f"{user_id}/{user}" if user else user_id
        with ExitStack() as unless_queued:
            pinned = unless_queued.enter_context(self._pin(adapter))
            works = [
                _Work(
                    messages,
                    s,
                    turn,
                    adapter=pinned,
                    user=asker,
                    prefill=prefill,
                    timeout_seconds=timeout_seconds,
                )
                for s in samplings
            ]
            pins = [unless_queued.enter_context(ExitStack()) for _ in works]
            for pin in pins:
                pin.enter_context(self._slots.hold(pinned))
            buttons = [pin.enter_context(self.running.admit()) for pin in pins]
            streams = self._engine.submit_many([work.request(pinned) for work in works])
            for button, stream in zip(buttons, streams, strict=True):
                button.attach(stream)
            kept = [pin.pop_all() for pin in pins]
        return [
            QueuedAnswer(stream, self._begin_and_follow(stream, work, pin))
            for stream, work, pin in zip(streams, works, kept, strict=True)
        ]

    def _run(self, work: _Work, stop: StopButton | None) -> Iterator[AnswerUpdate]:
        """Stream one answer; the adapter is pinned from the first token to the last."""
        with self.running.admit() as button, self._pin(work.adapter) as adapter:
            stream = self._engine.submit(work.request(adapter))
            for each in (button, stop or StopButton()):
                each.attach(stream)
            with _ended(stream):
                yield from self._follow(stream, work, self._begin(work, adapter), adapter)

    def _begin_and_follow(
        self, stream: Stream, work: _Work, pin: ExitStack
    ) -> Iterator[AnswerUpdate]:
        """The same for a stream that is queued already; its first update is its stored start."""
        with pin, _ended(stream):
            answer_id = self._begin(work, work.adapter)
            yield AnswerUpdate(answer_id, "", "", "streaming", adapter=work.adapter)
            yield from self._follow(stream, work, answer_id, work.adapter)

    def _pin(self, adapter: str | None) -> AbstractContextManager[str | None]:
        return self._slots.pin_live() if adapter == LIVE else self._slots.hold(adapter)

    def _begin(self, work: _Work, adapter: str | None) -> str | None:
        """Store the turn and that its answer is being made; None when the disk is full."""
        try:
            return self._store.begin_answer(
                work.store_turn(), base_digest=self._engine.base_digest, adapter_digest=adapter,
                sampling=work.sampling.as_dict(), seed=work.sampling.seed,
            )  # fmt: skip
        except StorageFull:
            return None

    def _follow(
        self, stream: Stream, work: _Work, answer_id: str | None, adapter: str | None
    ) -> Iterator[AnswerUpdate]:
        """Updates that lag one event behind, so that the last one follows the commit."""
        text, saved_at = "", time.monotonic()
        logprobs: tuple[TokenLogprob, ...] = ()
        logprobs_shown = 0
        try:
            for event in stream:
                if isinstance(event, TextDelta):
                    reasoned = work.split(text, finished=False)
                    yield AnswerUpdate(
                        answer_id, reasoned.thought, reasoned.answer, "streaming", work.note,
                        adapter=adapter, logprobs=logprobs,
                    )  # fmt: skip
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
                        self._finish(event, work, answer_id), adapter=adapter, logprobs=logprobs
                    )
                    answer_id = None  # stored; nothing left to do below
                    yield update
        finally:
            if answer_id is not None:  # the reader went away
                self._finish(Finished("cancelled", text, 0, 0), work, answer_id)

    def _finish(self, event: Finished | Failed, work: _Work, answer_id: str | None) -> AnswerUpdate:
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
        )
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
            )
        except StorageFull:
            return replace(update, answer_id=None, note=NOT_SAVED)
        return update

    def _save_partial(self, answer_id: str | None, said: Reasoned) -> None:
        if answer_id is None:
            return
        with suppress(StorageFull):  # said once, at the end
            self._store.save_partial(answer_id, said.answer, said.stored_thought)

    def _fit(
        self, template: PromptTemplate, history: list[Message], question: str, max_new_tokens: int
    ) -> tuple[tuple[Message, ...], bool]:
        """The prompt, with the oldest exchanges left out until prompt and answer fit.

        System prompt and examples are always kept. Raises `PromptTooLong` when the question does
        not fit even alone.
        """
        room = self._engine.context_tokens - max_new_tokens
        exchanges = len(history) // 2

        def with_newest(kept: int) -> tuple[Message, ...]:
            return template.build(history[2 * (exchanges - kept) :], question)

        def tokens_with(kept: int) -> int:
            return self._engine.count_prompt_tokens(with_newest(kept))

        if (tokens := tokens_with(0)) > room:
            raise PromptTooLong(
                f"the message is too long: prompt and answer would have {tokens + max_new_tokens}"
                f" tokens, and the model's context holds {self._engine.context_tokens}"
            )
        kept = _largest(lambda kept: tokens_with(kept) <= room, exchanges)
        return with_newest(kept), kept < exchanges

    def _seeded(self, sampling: SamplingParams | None) -> SamplingParams:
        return sampling or replace(self._sampling, seed=secrets.randbits(31))


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, where all below one that fits do, as 0 does.

    By doubling, then by bisection: what does not fit is tried at about twice the size that does.
    """
    low, high = 0, most + 1
    step = 1
    while low + 1 < high:
        probe = min(low + step, high - 1)
        if fits(probe):
            low, step = probe, 2 * step
        else:
            high, step = probe, max(1, (probe - low) // 2)
    return low


@dataclass(frozen=True, slots=True)
class _Work:
    """One answer to make: what is shown, how it is drawn, and how its turn is stored."""

    messages: tuple[Message, ...]
    sampling: SamplingParams
    store_turn: Callable[[], str]
    answer_line: bool = False
    note: str = ""
    adapter: str | None = LIVE
    user: str = ""
    timeout_seconds: float | None = None
    prefill: str = ""

    def request(self, adapter: str | None) -> GenerationRequest:
        return GenerationRequest(
            self.messages, self.sampling, adapter, self.user, self.timeout_seconds, self.prefill
        )

    def whole(self, text: str) -> Reasoned:
        """A finished answer including its prefill."""
        return split_reasoning(self.prefill + text, answer_line=self.answer_line)

    def split(self, text: str, *, finished: bool) -> Reasoned:
        """The answer after its prefill."""
        return split_reasoning(
            self.prefill + text, finished=finished, answer_line=self.answer_line,
            given=len(self.prefill),
        )  # fmt: skip


class _Once:
    """A function called once, whichever thread comes first; the others get its result."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._result: str | None = None

    def __call__(self) -> str:
        with self._lock:
            if self._result is None:
                self._result = self._function()
            return self._result


@contextmanager
def _ended(stream: Stream) -> Iterator[None]:
    """However the block is left, the stream has ended after it."""
    try:
        yield
    finally:
        stream.cancel()
        for _ in stream:
            pass
