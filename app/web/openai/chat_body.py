"""A request for an answer to messages, in any of the API's formats, on its way to the engine.

Each format has a module with its schema and its reading of messages and tools; from here on they
are the same. Knows nothing of the formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Unpack

from app.answering.answering import RunningAnswer
from app.answering.completions import CompletionOptions
from app.service import Service
from engine.answer_form import AnswerForm
from engine.errors import InvalidInput
from engine.messages import Message
from engine.request import SamplingParams
from engine.serving.prompt import require_plausible_count


class ChatPrompt(Protocol):
    """The fields that make up the prompt. Methods raise `InvalidInput` or `InvalidText`."""

    model: str

    @property
    def message_count(self) -> int:
        """The number of messages, before they are read."""

    @property
    def asked_thinking(self) -> bool | None:
        """Return whether the model is to think first; None leaves it to the model."""

    def form(self) -> AnswerForm:
        """Return what the answer may be."""

    def conversation(self, form: AnswerForm) -> tuple[Message, ...]:
        """Return the messages; a system message offers the form's tools."""


class ChatBody(ChatPrompt, Protocol):
    """The body of a request for answers."""

    timeout_seconds: float | None

    @property
    def asked_by(self) -> str:
        """The person on whose behalf the caller asks; "" for the caller."""

    def samplings(self, usual: SamplingParams, form: AnswerForm) -> Sequence[SamplingParams]:
        """Return the sampling parameters of each answer; `usual` are the operator's."""


def submit_chat(service: Service, user_id: str, body: ChatBody) -> list[RunningAnswer]:
    """Queue the answers; errors are raised here, before a status is sent."""
    form = plausible_form(service, body)
    return complete_chat(service, user_id, body, form, body.conversation(form))


def complete_chat(
    service: Service,
    user_id: str,
    body: ChatBody,
    form: AnswerForm,
    messages: tuple[Message, ...],
    **options: Unpack[CompletionOptions],
) -> list[RunningAnswer]:
    """Queue the answers to messages that have been read."""
    return service.completions.complete(
        user_id,
        messages,
        body.samplings(service.chat.sampling(), form),
        adapter=service.adapter_named(body.model),
        user=body.asked_by,
        timeout_seconds=body.timeout_seconds,
        thinking=form.thinking(body.asked_thinking),
        **options,
    )


def count_chat_tokens(service: Service, body: ChatPrompt) -> int:
    """Return the tokens of the prompt, as an answer to it would count them."""
    form = plausible_form(service, body)
    return service.completions.count_tokens(
        body.conversation(form),
        adapter=service.adapter_named(body.model),
        thinking=form.thinking(body.asked_thinking),
    )


def plausible_form(service: Service, body: ChatPrompt) -> AnswerForm:
    """Return what an answer may be; raises `PromptTooLong` for messages that no context holds,
    before they are read."""
    require_plausible_count(body.message_count, service.engine.context_tokens)
    return body.form()


def require_thoughts(service: Service, body: ChatPrompt, field: str) -> None:
    """Raise `InvalidInput` where thoughts are asked of a model that cannot be asked for them."""
    if body.asked_thinking and service.engine.thinks_unasked is None:
        raise InvalidInput(f"{field}: this model has no thoughts that can be switched on")
