"""The options of a call, by the names that OpenAI's and vLLM's APIs give them.

Knows their names, types and defaults; their ranges are the engine's to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from engine.answer_form import AnswerForm, read_response_format
from engine.errors import InvalidInput
from engine.openai_tools import read_tool_choice, read_tools
from engine.request import LIVE, SEEDS, SamplingParams


class ModelOptions(BaseModel):
    """The options that a chat model has, and that any of its calls can change.

    None leaves an option to the server's operator or, in process, to `SamplingParams`.
    """

    model: str = LIVE
    """`live`, `base`, or the id of a release (or its beginning)."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    parallel_tool_calls: bool = True
    """Whether one answer may call several times; a small model calls too often."""
    enable_thinking: bool | None = None
    """Whether the model thinks first, where its chat template has that switch."""
    timeout: float | None = None
    """Seconds until an answer that is not done ends with `DeadlineExceeded`."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class CallOptions(ModelOptions):
    """The options of one call. An unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @classmethod
    def of(cls, defaults: ModelOptions, changes: Mapping[str, Any]) -> CallOptions:
        """The options of a chat model with the changes of one call; raises `InvalidInput`."""
        usual = {name: getattr(defaults, name) for name in ModelOptions.model_fields}
        try:
            return cls(**(usual | dict(changes)))
        except ValidationError as error:
            raise InvalidInput(_sentence(error)) from None

    def form(self) -> AnswerForm:
        """The form of an answer of an engine in process; raises `InvalidInput`."""
        tools = read_tools(self.tools)
        choice = read_tool_choice(self.tool_choice, parallel=self.parallel_tool_calls, tools=tools)
        return AnswerForm(tools, choice, read_response_format(self.response_format))

    def sampling(self, form: AnswerForm) -> SamplingParams:
        """The sampling parameters of an engine in process; raises `InvalidInput`."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput("top_logprobs needs logprobs to be true")
        same = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
        given = {name: getattr(self, name) for name in (*same, "repetition_penalty")}
        given["max_new_tokens"] = self.max_tokens
        given["seed"] = None if self.seed is None else self.seed % SEEDS
        return SamplingParams(
            **{name: value for name, value in given.items() if value is not None},
            stop=tuple(filter(None, self.stop or ())),
            logit_bias=tuple((self.logit_bias or {}).items()),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            grammar=form.grammar,
            tool_choice=form.tool_choice,
        )

    def body(self) -> dict[str, Any]:
        """The fields of a request to `/v1/chat/completions` that are given."""
        renamed = {"timeout": "timeout_seconds"}
        fields = self.model_dump(exclude_none=True, exclude={"enable_thinking"})
        if not self.tools:
            fields = {name: fields[name] for name in fields if name not in _ONLY_WITH_TOOLS}
        if self.enable_thinking is not None:
            fields["chat_template_kwargs"] = {"enable_thinking": self.enable_thinking}
        return {renamed.get(name, name): value for name, value in fields.items()}


_ONLY_WITH_TOOLS = ("tools", "parallel_tool_calls")


def _sentence(error: ValidationError) -> str:
    """Name the options that are wrong, without their values."""
    problems = error.errors(include_input=False, include_url=False)
    unknown = [str(p["loc"][-1]) for p in problems if p["type"] == "extra_forbidden"]
    if unknown:
        return f"{', '.join(unknown)}: ChatBurnish has no such option"
    return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
