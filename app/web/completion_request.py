"""The schema of a chat-completion request.

Every field of OpenAI's API is served, refused by name, or a label without effect on the tokens;
`UNSUPPORTED_FIELDS` and `LABELS` say which. Fields outside OpenAI's API are ignored. Knows nothing
of HTTP and of how the answer is generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.answering import LIVE
from app.web.chat_messages import messages_of
from app.web.chat_tools import read_tool_choice, read_tools
from engine.errors import InvalidInput
from engine.messages import Message
from engine.request import MAX_LOGIT_BIAS, MAX_LOGPROBS, SEEDS, Grammar, SamplingParams
from engine.tools import ToolChoice

MAX_CHOICES = 16
MAX_STOPS = 16
TOKEN_ID_DIGITS = 10
StopString = Annotated[str, Field(max_length=1000)]

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


class _Lenient(BaseModel):
    """A model that ignores unknown fields and reads null as the default, as OpenAI's clients
    expect; a number in quotation marks is refused."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: object) -> object:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data


class StreamOptions(_Lenient):
    """Options of a streamed response."""

    include_usage: bool = False


class TemplateOptions(_Lenient):
    """Variables for the model's chat template, as in vLLM; unknown ones are ignored."""

    enable_thinking: bool | None = None


class JsonSchema(_Lenient):
    """The schema of `response_format`; `strict` and `name` change nothing: it always holds."""

    schema_: Annotated[dict[str, Any], Field(alias="schema")] = {}


class ResponseFormat(_Lenient):
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


class CompletionRequest(_Lenient):
    """The request body. Messages and biases are parsed by the thread that submits the request,
    since a body may hold a hundred thousand of them."""

    model: str = LIVE
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, fail_fast=True)]
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, Any] = {}
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS, fail_fast=True)] = []
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0
    user: Annotated[str, Field(max_length=256)] = ""
    timeout_seconds: float | None = None
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    response_format: ResponseFormat = ResponseFormat(type="text")
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        if isinstance(data, dict):
            for name, neutral in UNSUPPORTED_FIELDS.items():
                value = data.get(name)
                if value is not None and value not in neutral:
                    raise InvalidInput(_unsupported(name, neutral))
        return data

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
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        first = SamplingParams(
            temperature=usual.temperature if self.temperature is None else self.temperature,
            top_p=usual.top_p if self.top_p is None else self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=_logit_bias(self.logit_bias),
            max_new_tokens=next(limit for limit in limits if limit is not None),
            seed=usual.seed if self.seed is None else self.seed % SEEDS,
            stop=tuple(filter(None, stops)),  # an empty text stops nothing, as in llama.cpp
            ignore_eos=self.ignore_eos,
            logprobs=self.top_logprobs if self.logprobs else None,
            grammar=self.response_format.grammar(),
            tool_choice=tool_choice,
        )
        return [replace(first, seed=(first.seed + index) % SEEDS) for index in range(self.n)]


def _unsupported(name: str, neutral: tuple[object, ...]) -> str:
    allowed = " or ".join(["null", *map(json.dumps, neutral)])
    return f"{name} is not supported; leave it out, or send {allowed}"


def _logit_bias(given: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """Parse biases by token id; a JSON object has its keys as text."""
    if len(given) > MAX_LOGIT_BIAS:
        raise InvalidInput(f"logit_bias may name at most {MAX_LOGIT_BIAS} tokens")
    for name, bias in given.items():
        if not (name.isascii() and name.isdigit() and len(name) <= TOKEN_ID_DIGITS):
            raise InvalidInput(f"logit_bias: {name[:40]!r} is not a token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise InvalidInput(f"logit_bias.{name} must be a number")
    return tuple((int(name), bias) for name, bias in given.items())
