"""Completions of the HTTP API: answers to messages, and texts that follow raw prompts.

Knows messages and the store; knows nothing of HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypedDict, Unpack

from app.answering.answer_request import AnswerRequest
from app.answering.answering import LIVE, Answering, RunningAnswer
from app.answering.fitting import drop_oldest
from app.answering.stored_completions import HAS_INSTRUCTIONS, StoredCompletion
from engine.messages import Message, question_of, require_text, split_prefill, tools_of
from engine.prompts.modes import PromptTemplate
from engine.prompts.reasoning import without_thoughts
from engine.request import GenerationRequest, RawPrompt, SamplingParams
from engine.storage import digest_json
from engine.tools import Spoken
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import AskedTurn, UnstoredTurn, new_turn

AS_GIVEN = PromptTemplate("plain", "", "", ())  # callers send their own messages


class CompletionOptions(TypedDict, total=False):
    """Options that only some of the API's formats have.

    `follows`: the stored answer whose conversation goes on. `is_stored`: whether the store gets the
    answers (default: yes). `has_instructions`: the first message is this request's alone, and no
    answer that follows is shown it. `drops_oldest`: the oldest messages are left out where the
    context does not hold all. `in_canary`: a canary's candidate may answer
    (`app.answering.canary_routing`).
    """

    follows: StoredCompletion | None
    has_instructions: bool
    is_stored: bool
    drops_oldest: bool
    in_canary: bool


class Completions:
    """Answers programs that send their own messages, and stores each request as a turn.

    A caller's requests with the very same messages are one conversation for a day (UTC), so that
    their answers can be compared, whichever request they came from, and are held out or trained on
    together. The day is a limit for programs that send one question for ever. A request that
    follows a stored answer continues that answer's conversation.

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
        **options: Unpack[CompletionOptions],
    ) -> list[RunningAnswer]:
        """Queue one answer to the messages for each of `samplings`, all or none.

        The thoughts of earlier answers are left out. If the last message is the assistant's, it is
        continued: updates contain the text after it, and the store gets the whole answer. `user`
        names the person on whose behalf the caller asks, for the queue's fairness. Each answer's
        first update comes before its first token. Where the messages offer tools, updates have the
        calls apart from the text; the store has the text with its markup, as the model wrote it.
        Where not `is_stored`, the store gets nothing.

        Raises `InvalidInput`, `InvalidText`, `PromptTooLong`, `UnknownId`, `Overloaded` or
        `ShuttingDown`; nothing is stored then.
        """
        messages, prefill = _split(messages)
        question = require_text(question_of(messages), limit_chars=self._max_message_chars)
        if options.get("drops_oldest"):
            room = self._answering.context_tokens - max(each.max_new_tokens for each in samplings)
            count = partial(self._answering.count_prompt_tokens, thinking=thinking)
            messages = drop_oldest(messages, lambda kept: count(kept) <= room)
        follows = options.get("follows")
        conversation_id = (
            follows.turn.conversation_id if follows else _conversation_of(user_id, messages)
        )
        asked: AskedTurn = {
            "user_id": user_id,
            "question": question,
            "template": AS_GIVEN,
            "conversation_id": conversation_id,
            "parent_answer_id": follows.answer.id if follows else None,
            "prompt": messages,
            "listed": False,
        }
        turn: Callable[[], str | UnstoredTurn] | None = None
        if options.get("is_stored", True):
            turn = partial(new_turn, **asked)
            if len(samplings) > 1:  # which of them comes first is not known
                turn = _Once(lambda: self._store.add_turn(**asked).id)
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
                conversation_id=conversation_id if options.get("in_canary") else None,
                extra_sampling={HAS_INSTRUCTIONS: True} if options.get("has_instructions") else {},
            )
            for each in samplings
        ]
        return self._answering.start_all(requests)

    def stored(self, user_id: str, answer_id: str) -> StoredCompletion:
        """Return an answer of this user's with its prompt; raises `UnknownId`."""
        turn, prompt = self._store.shown_prompt(answer_id, user_id)
        answer = self._store.answer(answer_id, user_id)
        reader = self._answering.call_format
        spoken = reader.read(answer.text) if tools_of(prompt) else Spoken(answer.text)
        return StoredCompletion(turn, prompt, answer, spoken)

    def count_tokens(
        self, messages: tuple[Message, ...], *, adapter: str | None, thinking: bool | None
    ) -> int:
        """Return the tokens of a prompt, as `complete` renders it; raises its errors."""
        messages, prefill = _split(messages)
        question_of(messages)
        with self._answering.pin(adapter) as pinned:
            request = GenerationRequest(
                messages, adapter=pinned, prefill=prefill, thinking=thinking
            )
            return self._answering.request_tokens(request)

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
                turn=None,
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


def _split(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """Return the messages as the model is shown them, and the given beginning of the answer."""
    messages, prefill = split_prefill(messages)
    return (*without_thoughts(messages[:-1]), *messages[-1:]), prefill


def _conversation_of(user_id: str, messages: Sequence[Message]) -> str:
    """Return the conversation of a caller's messages today."""
    today = datetime.now(UTC).date().isoformat()
    digest = digest_json([user_id, today, [message.as_dict() for message in messages]])
    return f"api-{digest[-32:]}"


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
