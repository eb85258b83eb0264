"""The schema of a request for a message (Anthropic's `/v1/messages`), and for its count of tokens.

Every field of Anthropic's document is served, refused by name, or a label without effect on the
tokens. Knows nothing of HTTP and of how the answer is generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.web.anthropic.content import read_anthropic_messages, read_anthropic_tool
from app.web.openai.sampling_fields import (
    CallersUser,
    Lenient,
    SamplingFields,
    StopStrings,
    refuse_unsupported,
)
from engine.answer_form import AnswerForm, read_response_format
from engine.message_reading import with_tools
from engine.messages import Message
from engine.openai_tools import ChoiceMode, choice_among, read_tools
from engine.request import SamplingParams
from engine.tools import require_function_name

# As `completion_request.UNSUPPORTED_FIELDS`; those of betas that would be missed, too
UNSUPPORTED_MESSAGE_FIELDS: Mapping[str, tuple[object, ...]] = {
    "container": (),
    "context_management": (),
    "diagnostics": (),
    "inference_geo": (),
    "mcp_servers": ([],),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
    "user_profile_id": (),
}
MESSAGE_LABELS = ("cache_control",)  # each prompt's beginning is kept, asked for or not
MODES_OF_CHOICE: Mapping[str, ChoiceMode] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}


class CallerMetadata(Lenient):
    """The person on whose behalf the caller asks."""

    user_id: CallersUser = ""


class ThinkingConfig(Lenient):
    """The switch of thoughts. `budget_tokens` is a target that no model here knows."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    display: Literal["summarized"] | None = None


class OutputConfig(Lenient):
    """The language of the answer."""

    format: dict[str, Any] | None = None
    effort: Literal["high"] | None = None  # the default


class CallRule(Lenient):
    """The rule for calls: whether tools may or must be called, which one, and how many at once."""

    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool = False


class PromptRequest(SamplingFields):
    """The body of a count of tokens: what makes up the prompt."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, fail_fast=True)]
    system: str | list[Any] = ""
    tools: list[dict[str, Any]] = Field(default=[])
    tool_choice: CallRule = CallRule()
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig = OutputConfig()

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        return refuse_unsupported(data, UNSUPPORTED_MESSAGE_FIELDS)

    @property
    def message_count(self) -> int:
        """See `ChatBody`."""
        return len(self.messages)

    @property
    def asked_thinking(self) -> bool | None:
        """See `ChatBody`."""
        return None if self.thinking is None else self.thinking.type != "disabled"

    def form(self) -> AnswerForm:
        """See `ChatBody`."""
        tools, rule = read_tools(self.tools, read_anthropic_tool), self.tool_choice
        name = require_function_name(rule.name, "tool_choice.name") if rule.type == "tool" else None
        choice = choice_among(
            tools, MODES_OF_CHOICE[rule.type], name, parallel=not rule.disable_parallel_tool_use
        )
        return AnswerForm(
            tools, choice, read_response_format(self.output_config.format, "output_config.format")
        )

    def conversation(self, form: AnswerForm) -> tuple[Message, ...]:
        """See `ChatBody`."""
        messages = read_anthropic_messages(self.system, self.messages)
        return with_tools(tuple(messages), form.offered)


class MessageRequest(PromptRequest):
    """The body of a request for a message. Implements `ChatBody`."""

    max_tokens: int
    stop_sequences: StopStrings = Field(default=[])
    metadata: CallerMetadata = CallerMetadata()

    @property
    def asked_by(self) -> str:
        """See `ChatBody`."""
        return self.metadata.user_id

    def samplings(self, usual: SamplingParams, form: AnswerForm) -> list[SamplingParams]:
        """See `ChatBody`."""
        sampling = self.sampling(
            usual,
            self.stop_sequences,
            max_new_tokens=self.max_tokens,
            grammar=form.grammar,
            tool_choice=form.tool_choice,
        )
        return [sampling]
