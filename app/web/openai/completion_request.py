"""The schema of a chat-completion request.

Every field of OpenAI's API is served, refused by name, or a label without effect on the tokens;
`UNSUPPORTED_FIELDS` and `LABELS` say which. Fields outside OpenAI's API are ignored. Knows nothing
of HTTP and of how the answer is generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from app.web.openai.sampling_fields import ChoiceFields, Lenient, refuse_unsupported
from engine.answer_form import AnswerForm, read_response_format
from engine.errors import InvalidInput
from engine.messages import Message
from engine.openai_messages import messages_of
from engine.openai_tools import read_tool_choice, read_tools
from engine.request import MAX_LOGPROBS, SamplingParams

# Unsupported fields, each with the values that request nothing and are accepted, like null.
UNSUPPORTED_FIELDS: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),  # without functions
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# Fields that only label the request: accepted without effect.
LABELS = ("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier")


class TemplateOptions(Lenient):
    """Variables for the model's chat template, as in vLLM; unknown ones are ignored."""

    enable_thinking: bool | None = None


class CompletionRequest(ChoiceFields):
    """Implements `ChatBody`. Messages, tools and biases are parsed by the thread that submits the
    request, since a body may hold a hundred thousand of them."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] = Field(default=[])
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        return refuse_unsupported(data, UNSUPPORTED_FIELDS)

    @property
    def asked_by(self) -> str:
        """See `ChatBody`."""
        return self.user

    @property
    def message_count(self) -> int:
        """See `ChatBody`."""
        return len(self.messages)

    @property
    def asked_thinking(self) -> bool | None:
        """See `ChatBody`."""
        return self.chat_template_kwargs.enable_thinking

    def form(self) -> AnswerForm:
        """See `ChatBody`."""
        tools = read_tools(self.tools)
        choice = read_tool_choice(self.tool_choice, parallel=self.parallel_tool_calls, tools=tools)
        return AnswerForm(tools, choice, read_response_format(self.response_format))

    def conversation(self, form: AnswerForm) -> tuple[Message, ...]:
        """See `ChatBody`."""
        return messages_of(self.messages, form.offered)

    def samplings(self, usual: SamplingParams, form: AnswerForm) -> list[SamplingParams]:
        """See `ChatBody`."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput("top_logprobs needs logprobs to be true")
        for name in ("max_completion_tokens", "max_tokens"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise InvalidInput(f"{name} must be at least 1")
        limits = (self.max_completion_tokens, self.max_tokens, usual.max_new_tokens)
        return self.choices_of(
            usual,
            max_new_tokens=next(limit for limit in limits if limit is not None),
            logprobs=self.top_logprobs if self.logprobs else None,
            grammar=form.grammar,
            tool_choice=form.tool_choice,
        )
