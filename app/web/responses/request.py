"""The schema of a request for a response (OpenAI's `/v1/responses`).

Every field of OpenAI's document is served, refused by name, or a label without effect on the
tokens. Knows nothing of HTTP and of how the answer is generated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.web.openai.sampling_fields import CallersUser, Lenient, SamplingFields, refuse_unsupported
from app.web.responses.items import read_response_input, read_response_tool
from engine.answer_form import AnswerForm, read_response_format
from engine.message_reading import with_tools
from engine.messages import Message
from engine.openai_tools import read_tool_choice, read_tools
from engine.request import MAX_LOGPROBS, SamplingParams

# As `completion_request.UNSUPPORTED_FIELDS`
UNSUPPORTED_RESPONSE_FIELDS: Mapping[str, tuple[object, ...]] = {
    "access_programs": (),
    "background": (False,),
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "prompt": (),
    "prompt_cache_options": (),
    "service_tier": ("auto", "default"),
    "stream_options": ({}, {"include_obfuscation": False}),
}
UNSUPPORTED_REASONING_FIELDS: Mapping[str, tuple[object, ...]] = {
    "context": ("auto",),
    "generate_summary": (),
    "mode": ("standard",),
    "summary": (),
}
RESPONSE_LABELS = ("prompt_cache_key", "prompt_cache_retention", "safety_identifier")


class TextConfig(Lenient):
    """The language of the answer."""

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None  # the default


class ReasoningConfig(Lenient):
    """The switch of thoughts: a model here thinks first, or does not."""

    effort: Literal["none", "medium"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        return refuse_unsupported(data, UNSUPPORTED_REASONING_FIELDS, "reasoning.")


class ResponseRequest(SamplingFields):
    """The request body. Implements `ChatBody`, but that it may follow an earlier response."""

    input: str | list[Any]
    instructions: str = ""
    previous_response_id: str | None = None
    store: bool = True
    max_output_tokens: int | None = None
    include: list[Literal["message.output_text.logprobs"]] = Field(default=[])
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    text: TextConfig = TextConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    tools: list[dict[str, Any]] = Field(default=[])
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: dict[str, str] = Field(default={})
    user: CallersUser = ""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        return refuse_unsupported(data, UNSUPPORTED_RESPONSE_FIELDS)

    @property
    def asked_by(self) -> str:
        """See `ChatBody`."""
        return self.user

    @property
    def message_count(self) -> int:
        """See `ChatBody`."""
        return 1 if isinstance(self.input, str) else len(self.input)

    @property
    def asked_thinking(self) -> bool | None:
        """See `ChatBody`."""
        return None if self.reasoning.effort is None else self.reasoning.effort != "none"

    def form(self) -> AnswerForm:
        """See `ChatBody`."""
        tools = read_tools(self.tools, read_response_tool)
        choice = read_tool_choice(self.tool_choice, parallel=self.parallel_tool_calls, tools=tools)
        return AnswerForm(tools, choice, read_response_format(self.text.format, "text.format"))

    def conversation(
        self, form: AnswerForm, earlier: Sequence[Message] = ()
    ) -> tuple[Message, ...]:
        """See `ChatBody`; `earlier` are the messages up to the response before."""
        messages = read_response_input(self.input, self.instructions, earlier)
        return with_tools(messages, form.offered)

    def samplings(self, usual: SamplingParams, form: AnswerForm) -> list[SamplingParams]:
        """See `ChatBody`."""
        limit = self.max_output_tokens
        wants_logprobs = self.include or self.top_logprobs is not None
        sampling = self.sampling(
            usual,
            max_new_tokens=usual.max_new_tokens if limit is None else limit,
            logprobs=(self.top_logprobs or 0) if wants_logprobs else None,
            grammar=form.grammar,
            tool_choice=form.tool_choice,
        )
        return [sampling]
