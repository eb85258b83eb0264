"""The chat: ask a question, regenerate, change or continue an answer.

Knows conversations, prompts and their limits; `app.answering.answering` generates and stores the
answers.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Any

from app.answering.answer_options import AnswerOptions
from app.answering.answer_request import AnswerRequest
from app.answering.answering import LIVE, Answering, RunningAnswer
from app.answering.fitting import require_room
from app.answering.question_prompt import TRIMMED as TRIMMED  # for those who show the note
from app.answering.question_prompt import QuestionPrompts, example_ids_of, offering_nothing
from app.answering.self_consistency import chain_count
from app.tools.called import as_messages, called_from_rows
from app.tools.toolbox import Caller, Toolbox
from engine.message_reading import with_tools
from engine.messages import Message, require_text, tools_of
from engine.prompts.examples import Example
from engine.prompts.modes import CHAINS, has_answer_line
from engine.prompts.reasoning import join_reasoning
from engine.request import Engine, SamplingParams
from feedback_store.documents.library import Library
from feedback_store.personal.feedback_examples import FeedbackExamples
from feedback_store.records import Turn
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import UnstoredTurn, new_turn

SAMPLING_NAMES = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "seed")
DEFAULTS = AnswerOptions()


class Chat:
    """The conversations of all users, on one engine and one store."""

    def __init__(
        self,
        engine: Engine,
        answering: Answering,
        store: FeedbackStore,
        *,
        examples: Callable[[], tuple[Example, ...]],
        system_prompt: str,
        sampling: SamplingParams,
        max_message_chars: int,
        feedback_examples: FeedbackExamples,
        library: Library,
        toolbox: Toolbox,
    ) -> None:
        self._engine = engine
        self._store = store
        self._answering = answering
        self._prompts = QuestionPrompts(
            engine, examples, system_prompt, feedback_examples, library, toolbox
        )
        self._sampling = sampling
        self._max_message_chars = max_message_chars
        self._feedback_examples = feedback_examples
        self._toolbox = toolbox
        self.running = answering.running

    def ask(
        self,
        user_id: str,
        question: str,
        options: AnswerOptions = DEFAULTS,
        *,
        conversation_id: str,
        parent_answer_id: str | None = None,
    ) -> RunningAnswer:
        """Answer a question that follows `parent_answer_id` in a conversation.

        In every mode the model sees, as examples, answers to similar questions that the person
        corrected or liked, or that the operator shares with everybody. Chain-of-thought takes only
        examples with a thought, since one without would teach the model to skip it. A question
        about documents shows passages of them, and no such examples: their answers cite nothing.

        Raises `InvalidText`, `PromptTooLong`, `UnknownId`, `Overloaded` or `ShuttingDown`; nothing
        is stored then.
        """
        require_text(question, limit_chars=self._max_message_chars)
        sampling = options.sampling or self.sampling()
        history = self._store.history(parent_answer_id, user_id)
        prompt = self._prompts.make(user_id, history, question, options, sampling)

        def turn() -> UnstoredTurn:
            return new_turn(
                user_id=user_id,
                question=question,
                template=prompt.template,
                conversation_id=conversation_id,
                parent_answer_id=parent_answer_id,
                prompt=(
                    prompt.with_offer(prompt.fitted.without_feedback) if prompt.is_special else None
                ),
                example_ids=[example.reference for example in prompt.fitted.examples],
                passages=prompt.grounding.stored if prompt.grounding else None,
            )

        request = prompt.request(options, sampling, user_id, turn)
        return self._answering.start(replace(request, conversation_id=conversation_id))

    def regenerate(
        self,
        user_id: str,
        answer_id: str,
        *,
        to_compare: bool = False,
        adapter: str | None = LIVE,
        sampling: SamplingParams | None = None,
        zone: tzinfo | None = None,
    ) -> RunningAnswer:
        """Start another answer to the same turn, a sibling, from the same prompt.

        Examples from feedback that were removed, replaced or withdrawn since are left out of the
        prompt, and where it offers tools, those are offered that the person allows today. The
        request is recorded as a regeneration of the first answer, unless the two are to be
        compared: then it is no judgement yet, and the first answer stays the one shown. Raises the
        errors of `ask`.
        """
        shown = self._feedback_examples.still_used(user_id, answer_id)
        turn, messages = self._store.shown_prompt(answer_id, user_id, shown)

        def begin() -> str:
            if not to_compare:
                self._store.note(answer_id, user_id, "regeneration")
            return turn.id

        sampling = sampling or self.sampling()
        made = self._store.answer(answer_id, user_id).sampling
        offer, note = None, ""
        if tools_of(messages):
            offer, note = self._toolbox.offer(Caller(user_id, zone))
            messages = with_tools(offering_nothing(messages), offer.functions if offer else ())
        request = AnswerRequest(
            messages,
            sampling,
            begin,
            has_answer_line(turn.mode),
            note,
            tool_offer=offer,
            adapter=adapter,
            user=user_id,
            is_shown=not to_compare,
            example_ids=example_ids_of(shown),
            chains=chain_count(turn.mode, made.get("samples", CHAINS), sampling),
            thinking=made.get("thinking"),
            conversation_id=None if to_compare else turn.conversation_id,
        )
        return self._answering.start(request)

    def change(
        self,
        user_id: str,
        answer_id: str,
        change: str,
        instruction: str,
        *,
        adapter: str | None = LIVE,
        sampling: SamplingParams | None = None,
    ) -> RunningAnswer:
        """Rewrite an answer under an instruction ("make it shorter"); the result is a sibling.

        The model sees the instruction after the answer. The instruction is not stored: a person
        who prefers the sibling prefers it as an answer to the question as it was asked. `change`
        names the kind of instruction and is stored with the sibling. Raises the errors of `ask`.
        """
        require_text(instruction, what="instruction", limit_chars=self._max_message_chars)
        turn, shown = self._store.shown_prompt(answer_id, user_id)
        answer = self._store.answer(answer_id, user_id)
        thinking = answer.sampling.get("thinking")
        rewritten = Message("assistant", answer.text), Message("user", instruction)
        messages = (*offering_nothing(shown), *rewritten)
        sampling = sampling or self.sampling()
        require_room(
            self._engine.count_prompt_tokens(messages, thinking),
            self._engine.context_tokens,
            sampling.max_new_tokens,
        )
        request = AnswerRequest(
            messages,
            sampling,
            lambda: turn.id,
            adapter=adapter,
            user=user_id,
            thinking=thinking,
            conversation_id=turn.conversation_id,
            called=called_from_rows(answer.tool_calls),
            extra_sampling={"change": change, "changed_from": answer_id},
        )
        return self._answering.start(request)

    def continue_answer(self, user_id: str, answer_id: str) -> RunningAnswer:
        """Continue an answer that was stopped or cut off; the stored answer grows.

        Raises `Conflict` for an answer that ended by itself or is still being generated, and the
        errors of `ask`.
        """
        shown = self._feedback_examples.still_used(user_id, answer_id)
        turn, messages = self._store.shown_prompt(answer_id, user_id, shown)
        answer = self._store.reopen_answer(answer_id, user_id)
        called = called_from_rows(answer.tool_calls)
        request = AnswerRequest(
            (*offering_nothing(messages), *as_messages(called)),
            self.sampling(),
            None,
            has_answer_line(turn.mode),
            user=user_id,
            prefill=join_reasoning(answer.thought, answer.text),
            continued_id=answer_id,
            example_ids=example_ids_of(shown),
            thinking=answer.sampling.get("thinking"),
            conversation_id=turn.conversation_id,
            called=called,
        )
        return self._answering.start(request)

    def ask_unstored(
        self,
        user_id: str,
        history: Sequence[Message],
        question: str,
        options: AnswerOptions = DEFAULTS,
    ) -> RunningAnswer:
        """Answer a question of a temporary chat; nothing is stored, and updates have no id."""
        require_text(question, limit_chars=self._max_message_chars)
        sampling = options.sampling or self.sampling()
        prompt = self._prompts.make(user_id, history, question, options, sampling)
        return self._answering.start(prompt.request(options, sampling, user_id, None))

    def answer_now(self, user_id: str, answer_id: str) -> RunningAnswer:
        """Generate the live release's answer to the prompt of a stored answer, without storing it.

        Sampling and seed are those of the stored answer. Examples from feedback are left out, so
        that the answer shows what the release itself has learnt.

        Raises `UnknownId` for an answer of another user.
        """
        turn, messages = self._store.shown_prompt(answer_id, user_id)
        answer = self._store.answer(answer_id, user_id)
        made = answer.sampling
        sampling = self.sampling(**{name: made[name] for name in SAMPLING_NAMES if name in made})
        request = AnswerRequest(
            offering_nothing(messages), sampling, None, has_answer_line(turn.mode), user=user_id
        )
        return self._answering.start(request)

    def sampling(self, **changed: Any) -> SamplingParams:
        """Return the operator's sampling parameters with some changed, and a fresh seed.

        Raises `InvalidInput` for values out of range.
        """
        return replace(self._sampling, **{"seed": secrets.randbits(31), **changed})

    def turn_of(self, answer_id: str, user_id: str) -> Turn:
        """Return the turn of this user's answer; raises `UnknownId`."""
        return self._store.turn_of(answer_id, user_id)
