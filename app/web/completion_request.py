"""The schema of a chat-completion request.

Every field of OpenAI's API is served, refused by name, or a label without effect on the tokens;
`UNSUPPORTED_FIELDS` and `LABELS` say which. Fields outside OpenAI's API are ignored. Knows nothing
of HTTP and of how the answer is generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.answering import LIVE
from app.web.sampling_fields import Lenient, SamplingFields, refuse_unsupported
from engine.errors import InvalidInput
from engine.messages import Message
from engine.openai_messages import messages_of
from engine.openai_tools import read_tool_choice, read_tools
from engine.request import MAX_LOGPROBS, Grammar, SamplingParams
from engine.tools import ToolChoice

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


class JsonSchema(Lenient):
    """The schema of `response_format`; `strict` and `name` change nothing: it always holds."""

    schema_: dict[str, Any] = Field(default={}, alias="schema")


class ResponseFormat(Lenient):
    """The language of the answer, as in OpenAI's API, and a grammar as in its custom tools."""

    type: Literal["text", "json_object", "json_schema", "grammar"]
    json_schema: JsonSchema = JsonSchema()
    syntax: Literal["regex", "lark", "gbnf"] = "lark"
    definition: str = ""

    def grammar(self) -> Grammar | None:
        """Return the grammar; None for plain text."""
        if self.type == "json_schema":
            return Grammar("json_schema", json.dumps(self.json_schema.schema_))
        if self.type == "json_object":
            return Grammar("json_schema", json.dumps({"type": "object"}))
        return Grammar(self.syntax, self.definition) if self.type == "grammar" else None


class CompletionRequest(SamplingFields):
    """The request body. Messages and biases are parsed by the thread that submits the request,
    since a body may hold a hundred thousand of them."""

    model: str = LIVE
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    response_format: ResponseFormat = ResponseFormat(type="text")
    tools: list[dict[str, Any]] = Field(default=[])
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        return refuse_unsupported(data, UNSUPPORTED_FIELDS)

    @property
    def thinking(self) -> bool | None:
        """The switch of thoughts. An answer that follows a grammar has none, unless asked for."""
        asked = self.chat_template_kwargs.enable_thinking
        return False if asked is None and self.response_format.type != "text" else asked

    def chat(self) -> tuple[tuple[Message, ...], ToolChoice | None]:
        """Return the messages, with the tools that may be called, and the rule for calls.

        Raises `InvalidInput` or `InvalidText`.
        """
        tools = read_tools(self.tools)
        choice = read_tool_choice(self.tool_choice, parallel=self.parallel_tool_calls, tools=tools)
        if choice is not None and self.response_format.type != "text":
            raise InvalidInput("tools and response_format cannot be used together")
        return messages_of(self.messages, tools if choice else ()), choice

    def samplings(
        self, usual: SamplingParams, tool_choice: ToolChoice | None = None
    ) -> list[SamplingParams]:
        """Return the sampling parameters of each choice.

        Parameters that the body leaves out come from `usual`, the operator's. Raises
        `InvalidInput` for values out of range.
        """
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput("top_logprobs needs logprobs to be true")
        limits = (self.max_completion_tokens, self.max_tokens, usual.max_new_tokens)
        return self.choices_of(
            usual,
            max_new_tokens=next(limit for limit in limits if limit is not None),
            logprobs=self.top_logprobs if self.logprobs else None,
            grammar=self.response_format.grammar(),
            tool_choice=tool_choice,
        )
