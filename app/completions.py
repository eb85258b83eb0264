"""Completions of the HTTP API: answers to messages, and texts that follow raw prompts.

Knows messages and the store; knows nothing of HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from app.answering import LIVE, Answering, AnswerRequest, RunningAnswer
from engine.messages import Message, question_of, require_text, split_prefill, tools_of
from engine.prompts.modes import PromptTemplate
from engine.prompts.reasoning import without_thoughts
from engine.request import RawPrompt, SamplingParams
from feedback_store.storage.answers import new_id
from feedback_store.storage.store import FeedbackStore

AS_GIVEN = PromptTemplate("plain", "", "", ())  # callers send their own messages


class Completions:
    """Each request of messages is a conversation of its own, of one turn with sibling answers.

    A raw prompt is no conversation: it asks nothing that a person could judge the answer to, so
    nothing of it is stored.
    """

    def __init__(
        self, answering: Answering, store: FeedbackStore, *, max_message_chars: int
    ) -> None:
        self._answering = answering
        self._store = store
        self._max_message_chars = max_message_chars

    def complete(
        self,
        user_id: str,
        messages: tuple[Message, ...],
        samplings: Sequence[SamplingParams],
        *,
        adapter: str | None = LIVE,
        user: str = "",
        timeout_seconds: float | None = None,
        thinking: bool | None = None,
    ) -> list[RunningAnswer]:
        """Queue one answer to the messages for each of `samplings`, all or none.

        The thoughts of earlier answers are left out. If the last message is the assistant's, it is
        continued: updates contain the text after it, and the store gets the whole answer. `user`
        names the person on whose behalf the caller asks, for the queue's fairness. Each answer's
        first update comes before its first token. Where the messages offer tools, updates have the
        calls apart from the text; the store has the text with its markup, as the model wrote it.

        Raises `InvalidInput`, `InvalidText`, `PromptTooLong`, `UnknownId`, `Overloaded` or
        `ShuttingDown`; nothing is stored then.
        """
        messages, prefill = split_prefill(messages)
        question = require_text(question_of(messages), limit_chars=self._max_message_chars)
        messages = (*without_thoughts(messages[:-1]), messages[-1])

        def store_turn() -> str:
            return self._store.add_turn(
                user_id=user_id,
                question=question,
                template=AS_GIVEN,
                conversation_id=new_id(),
                prompt=messages,
                listed=False,
            ).id

        turn = _Once(store_turn)
        call_format = self._answering.call_format if tools_of(messages) else None
        requests = [
            AnswerRequest(
                messages,
                each,
                turn,
                adapter=adapter,
                user=asker_of(user_id, user),
                prefill=prefill,
                timeout_seconds=timeout_seconds,
                thinking=thinking,
                call_format=call_format,
            )
            for each in samplings
        ]
        return self._answering.start_all(requests)

    def complete_raw(
        self,
        user_id: str,
        prompts: Sequence[RawPrompt],
        samplings: Sequence[SamplingParams],
        *,
        echo: bool = False,
        adapter: str | None = LIVE,
        user: str = "",
        timeout_seconds: float | None = None,
    ) -> list[RunningAnswer]:
        """Queue a completion of each prompt for each of `samplings`, all or none.

        Those of one prompt come together, and nothing is stored. Raises `InvalidInput`,
        `PromptTooLong`, `UnknownId`, `Overloaded` or `ShuttingDown`.
        """
        requests = [
            AnswerRequest(
                (),
                each,
                store_turn=None,
                adapter=adapter,
                user=asker_of(user_id, user),
                timeout_seconds=timeout_seconds,
                prompt=prompt,
                echo=echo,
            )
            for prompt in prompts
            for each in samplings
        ]
        return self._answering.start_all(requests)


def asker_of(user_id: str, user: str) -> str:
    """Return whom the queue treats fairly: the caller, or whom the caller asks on behalf of."""
    return f"{user_id}/{user}" if user else user_id


class _Once:
    """Calls a function once, in the first thread that asks; all threads get its result."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._result: str | None = None

    def __call__(self) -> str:
        with self._lock:
            if self._result is None:
                self._result = self._function()
            return self._result
