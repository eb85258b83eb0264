"""The prompt of a question in the chat: template, examples, passages, tools, history that fits.

Knows templates and where examples, passages and tools come from; stores and generates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.answering.answer_options import AnswerOptions
from app.answering.answer_request import AnswerRequest
from app.answering.fitting import FittedPrompt, fit
from app.answering.self_consistency import chain_count
from app.grounding import Grounding, ground
from app.tools.toolbox import Caller, Toolbox, ToolOffer
from engine.message_reading import with_tools
from engine.messages import Message, clean_text
from engine.prompts.calls.messages import without_tools
from engine.prompts.examples import SHOWN, Example
from engine.prompts.modes import PromptTemplate, make_template
from engine.request import Engine, SamplingParams
from feedback_store.documents.library import Library
from feedback_store.personal.example_pool import FeedbackExample
from feedback_store.personal.feedback_examples import FeedbackExamples
from feedback_store.personal.own_prompts import MAX_PROMPT_CHARS
from feedback_store.storage.turns import UnstoredTurn

TRIMMED = "The beginning of this conversation no longer fits and was left out."


@dataclass(frozen=True, slots=True)
class QuestionPrompt:
    """The prompt of a question: the template to store, the messages that are shown, the passages of
    documents in them, the tools that they offer, a note for the person, and whether the messages
    cannot be rebuilt from the template."""

    template: PromptTemplate
    fitted: FittedPrompt
    grounding: Grounding | None
    offer: ToolOffer | None
    note: str
    is_special: bool

    def with_offer(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return messages that offer the tools."""
        return with_tools(messages, self.offer.functions if self.offer else ())

    def request(
        self,
        options: AnswerOptions,
        sampling: SamplingParams,
        user_id: str,
        turn: Callable[[], str | UnstoredTurn] | None,
    ) -> AnswerRequest:
        """Return the request for the answer to a new question."""
        fitted, grounding = self.fitted, self.grounding
        return AnswerRequest(
            self.with_offer(fitted.messages),
            sampling,
            turn,
            self.template.has_answer_line,
            self.note,
            tool_offer=self.offer,
            user=user_id,
            example_ids=example_ids_of(fitted.examples),
            fixed=grounding.fixed_answer if grounding else "",
            passages=tuple(grounding.stored) if grounding else None,
            chains=chain_count(options.mode, options.samples, sampling),
            thinking=options.thinking,
            adapter=options.adapter,
        )


class QuestionPrompts:
    """Makes the prompts of all users' questions, for one engine."""

    def __init__(
        self,
        engine: Engine,
        examples: Callable[[], tuple[Example, ...]],
        system_prompt: str,
        feedback_examples: FeedbackExamples,
        library: Library,
        toolbox: Toolbox,
    ) -> None:
        self._engine = engine
        self._examples = examples
        self._system_prompt = system_prompt
        self._feedback_examples = feedback_examples
        self._library = library
        self._toolbox = toolbox

    def make(
        self,
        user_id: str,
        history: Sequence[Message],
        question: str,
        options: AnswerOptions,
        sampling: SamplingParams,
    ) -> QuestionPrompt:
        """Make the prompt of a question after `history`; raises `InvalidText`, `PromptTooLong`."""
        examples = self._examples()
        clean_text(options.system, what="system prompt", limit_chars=MAX_PROMPT_CHARS)
        system = options.system or self._system_prompt
        # The stored template has the first examples, whatever was asked: one template per mode
        template = make_template(options.mode, examples[:SHOWN], system)
        shown = template
        if template.examples:
            from engine.prompts.similarity import most_similar  # with scipy, slow to import

            shown = make_template(options.mode, most_similar(examples, question), system)

        offer, note = None, ""
        # Modes that think first have a form of their own, which leaves calls no place
        if options.documents is None and not template.has_answer_line:
            offer, note = self._toolbox.offer(Caller(user_id, options.zone))
        functions = offer.functions if offer else ()

        def count(messages: Sequence[Message]) -> int:
            shown = with_tools(tuple(messages), functions)
            return self._engine.count_prompt_tokens(shown, options.thinking)

        room = self._engine.context_tokens - sampling.max_new_tokens
        grounding, asked = None, question
        similar: tuple[FeedbackExample, ...] = ()
        if options.documents is None:
            similar = self._feedback_examples.similar(
                user_id, question, with_thought=template.has_answer_line
            )
        else:
            found = ground(self._library, options.documents, question, history)
            grounding = found.that_fits(lambda text: count(shown.build((), text)) <= room)
            asked = grounding.shown_question
        fitted = fit(
            shown,
            history,
            asked,
            similar,
            context_tokens=self._engine.context_tokens,
            max_new_tokens=sampling.max_new_tokens,
            count=count,
        )
        if fitted.trimmed:
            note = "\n".join(filter(None, (TRIMMED, note)))
        is_special = (
            fitted.trimmed or shown != template or grounding is not None or offer is not None
        )
        return QuestionPrompt(template, fitted, grounding, offer, note, is_special)


def offering_nothing(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages without an offer of tools."""
    return tuple(without_tools(messages))


def example_ids_of(shown: Sequence[FeedbackExample]) -> tuple[str, ...]:
    """Return the ids of examples from feedback."""
    return tuple(example.id for example in shown)
