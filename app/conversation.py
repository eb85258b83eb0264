"""One chat turn, without any web framework: ask, stream, store, vote.

The order that matters: an answer is stored before its last words are shown, so that whatever a
person votes on is there. A full disk does not end the chat; the answer then says it was not saved.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from engine.adapters.slots import AdapterSlots
from engine.errors import PromptTooLong, StorageFull
from engine.messages import Message, require_text
from engine.prompts.examples import Example
from engine.prompts.modes import PromptTemplate, make_template
from engine.prompts.reasoning import Reasoned, split_reasoning
from engine.request import (
    Engine,
    Failed,
    Finished,
    GenerationRequest,
    SamplingParams,
    Stream,
    TextDelta,
)
from feedback_store.store import FeedbackStore, new_id

PARTIAL_SAVE_SECONDS = 1.0
TRIMMED = "The beginning of this conversation no longer fits and was left out."
LIVE = "live"
AS_GIVEN = PromptTemplate("plain", "", "", ())  # the HTTP API's callers bring their own messages
NOT_SAVED = "This answer could not be saved; it cannot be voted on."


@dataclass(frozen=True, slots=True)
class AnswerUpdate:
    """The answer as it stands. `status` is "streaming" until the last update."""

    answer_id: str | None
    thought: str
    text: str
    status: Literal["streaming", "done", "stopped", "failed"]
    note: str = ""
    finished: Finished | None = None
    adapter: str | None = None


class StopButton:
    """Ends one answer early; what has been made is kept."""

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._pressed = False

    def attach(self, stream: Stream) -> None:
        """Called once the engine has accepted the request."""
        self._stream = stream
        if self._pressed:
            stream.cancel()

    def press(self) -> None:
        """End the answer within a step."""
        self._pressed = True
        if self._stream is not None:
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

        Raises `InvalidText`, `PromptTooLong`, `UnknownId` or `Overloaded` at the first step, with
        nothing stored then.
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

        work = _Work(messages, sampling, store_turn, template.has_thought, TRIMMED * trimmed)
        yield from self._run(work, stop)

    def regenerate(
        self,
        user_id: str,
        answer_id: str,
        *,
        sampling: SamplingParams | None = None,
        stop: StopButton | None = None,
    ) -> Iterator[AnswerUpdate]:
        """Another answer to the same turn: a sibling, for the very same prompt."""
        turn, messages = self._store.shown_prompt(answer_id, user_id)
        work = _Work(messages, self._seeded(sampling), lambda: turn.id, turn.mode == "cot")
        yield from self._run(work, stop)

    def complete(
        self,
        user_id: str,
        messages: tuple[Message, ...],
        sampling: SamplingParams,
        *,
        adapter: str | None = LIVE,
        stop: StopButton | None = None,
    ) -> Iterator[AnswerUpdate]:
        """Answer messages given as they are, for the HTTP API; a conversation of its own."""
        question = require_text(messages[-1].content, limit_chars=self._max_message_chars)

        def store_turn() -> str:
            return self._store.add_turn(
                user_id=user_id, question=question, template=AS_GIVEN,
                conversation_id=new_id(), prompt=messages,
            ).id  # fmt: skip

        yield from self._run(_Work(messages, sampling, store_turn, adapter=adapter), stop)

    def _run(self, work: _Work, stop: StopButton | None) -> Iterator[AnswerUpdate]:
        """Stream one answer; the adapter is pinned from the first token to the last."""
        pinned = self._slots.pin_live() if work.adapter == LIVE else self._slots.hold(work.adapter)
        with pinned as adapter:
            stream = self._engine.submit(GenerationRequest(work.messages, work.sampling, adapter))
            (stop or StopButton()).attach(stream)
            try:
                yield from self._follow(stream, work, self._begin(work, adapter), adapter)
            finally:
                stream.cancel()
                for _ in stream:
                    pass

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
        try:
            for event in stream:
                if isinstance(event, TextDelta):
                    reasoned = work.split(text, finished=False)
                    yield AnswerUpdate(
                        answer_id, reasoned.thought, reasoned.answer, "streaming", work.note,
                        adapter=adapter,
                    )  # fmt: skip
                    text += event.text
                    if time.monotonic() - saved_at > PARTIAL_SAVE_SECONDS:
                        self._save_partial(answer_id, text)
                        saved_at = time.monotonic()
                else:
                    update = replace(self._finish(event, work, answer_id), adapter=adapter)
                    answer_id = None  # stored; nothing left to do below
                    yield update
        finally:
            if answer_id is not None:  # the reader went away
                self._finish(Finished("cancelled", text, 0, 0), work, answer_id)

    def _finish(self, event: Finished | Failed, work: _Work, answer_id: str | None) -> AnswerUpdate:
        """Store the answer's end, then say it."""
        reasoned = work.split(event.text, finished=True)
        failed = isinstance(event, Failed)
        stopped = isinstance(event, Finished) and event.reason == "cancelled"
        update = AnswerUpdate(
            answer_id,
            reasoned.thought,
            reasoned.answer,
            "failed" if failed else "stopped" if stopped else "done",
            str(event.error) if isinstance(event, Failed) else work.note,
            finished=event if isinstance(event, Finished) else None,
        )
        try:
            if answer_id is None:
                raise StorageFull(NOT_SAVED)
            self._store.finish_answer(
                answer_id,
                status=update.status,
                text=update.text,
                thought=update.thought,
                complete=isinstance(event, Finished) and event.reason == "stop",
                prompt_tokens=event.prompt_tokens if isinstance(event, Finished) else None,
                completion_tokens=event.completion_tokens if isinstance(event, Finished) else None,
                error=str(event.error) if isinstance(event, Failed) else None,
            )
        except StorageFull:
            return replace(update, answer_id=None, note=NOT_SAVED)
        return update

    def _save_partial(self, answer_id: str | None, text: str) -> None:
        if answer_id is None:
            return
        with suppress(StorageFull):  # said once, at the end
            self._store.save_partial(answer_id, text)

    def _fit(
        self, template: PromptTemplate, history: list[Message], question: str, max_new_tokens: int
    ) -> tuple[tuple[Message, ...], bool]:
        """The prompt, with the oldest exchanges left out until prompt and answer fit.

        System prompt and examples are always kept. Raises `PromptTooLong` when the question does
        not fit even alone.
        """
        room = self._engine.context_tokens - max_new_tokens
        for start in range(0, len(history) + 1, 2):
            messages = template.build(history[start:], question)
            tokens = self._engine.count_prompt_tokens(messages)
            if tokens <= room:
                return messages, start > 0
        raise PromptTooLong(
            f"the message is too long: prompt and answer would have {tokens + max_new_tokens}"
            f" tokens, and the model's context holds {self._engine.context_tokens}"
        )

    def _seeded(self, sampling: SamplingParams | None) -> SamplingParams:
        return sampling or replace(self._sampling, seed=secrets.randbits(31))


@dataclass(frozen=True, slots=True)
class _Work:
    """One answer to make: what is shown, how it is drawn, and how its turn is stored."""

    messages: tuple[Message, ...]
    sampling: SamplingParams
    store_turn: Callable[[], str]
    has_thought: bool = False
    note: str = ""
    adapter: str | None = LIVE

    def split(self, text: str, *, finished: bool) -> Reasoned:
        return split_reasoning(text, finished=finished) if self.has_thought else Reasoned("", text)
