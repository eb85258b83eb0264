"""`ChatBurnish`: what LangChain calls. Its answers come from an engine in process, or a server.

Each way of asking makes one request and follows its chunks: whole answers are their sum. Knows
LangChain; knows nothing of the two sources but that they yield chunks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import override

from engine.errors import InvalidInput, Overloaded
from engine.langchain.in_process import InProcess
from engine.langchain.interface import ChatRequest, ChunkSource
from engine.langchain.messages import openai_messages, whole_answer
from engine.langchain.options import CallOptions, ModelOptions
from engine.langchain.over_http import OverHttp
from engine.langchain.structured import Schema, StructuredMethod, structured


class ChatBurnish(ModelOptions, BaseChatModel):
    """A chat model over `engine` or `base_url`, one of them.

    `releases` (an `AdapterSlots`) resolves `model` in process, so that `live` and the ids of
    releases mean what they do on a server. `api_key` is sent to a server that wants one. A request
    that meets a full queue is made up to `max_retries` times again. Errors are of `engine.errors`.

        ChatBurnish(base_url="http://127.0.0.1:7860", temperature=0).invoke("Hello!")
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    engine: Any = Field(default=None, exclude=True, repr=False)  # an engine.request.Engine
    releases: Any = Field(default=None, exclude=True, repr=False)  # an engine.adapters' slots
    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    max_retries: int = Field(default=2, ge=0)
    streaming: bool = False
    _source: ChunkSource = PrivateAttr()

    @model_validator(mode="after")
    def _choose_source(self) -> Self:
        if (self.engine is None) == (self.base_url is None):
            raise InvalidInput("ChatBurnish needs an engine or a base_url, and not both")
        if self.base_url is None:
            self._source = InProcess(self.engine, self.releases)
        else:
            key = self.api_key.get_secret_value() if self.api_key else None
            self._source = OverHttp(self.base_url, key)
        return self

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = list(self._chunks(self._request(messages, stop, kwargs)))
        return _result(whole_answer(chunks))

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        return _result(whole_answer([chunk async for chunk in self._achunks(request)]))

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for message in self._chunks(self._request(messages, stop, kwargs)):
            yield ChatGenerationChunk(message=message)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for message in self._achunks(self._request(messages, stop, kwargs)):
            yield ChatGenerationChunk(message=message)

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools. `tool_choice` is "auto", "none", "any" (or "required", or True), the name of
        a tool, or OpenAI's object with it. Arguments are always valid under a tool's schema, which
        with `strict` has all its properties and no others."""
        offered = [convert_to_openai_tool(each, strict=strict) for each in tools]
        choice = _tool_choice(tool_choice, [each["function"]["name"] for each in offered])
        return self.bind(tools=offered, **choice, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: Schema,
        *,
        include_raw: bool = False,
        method: StructuredMethod = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer as values of a schema (`engine.langchain.structured`)."""
        return structured(
            self, schema, method=method, strict=strict, include_raw=include_raw, **kwargs
        )

    @property
    def _llm_type(self) -> str:
        return "burnish"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """The parameters on which answers depend, for LangChain's cache."""
        place = self.base_url if self.engine is None else self.engine.base_digest
        return {"place": place, **ModelOptions(**self._options()).model_dump()}

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ModelOptions.model_fields}

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        found = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        found["ls_provider"] = "burnish"
        return found

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, changes: dict[str, Any]
    ) -> ChatRequest:
        """The request of one call; raises `InvalidInput`."""
        if stop is not None:
            changes = {**changes, "stop": stop}
        wanted = {name: value for name, value in changes.items() if name != "stream"}
        return ChatRequest(openai_messages(messages), CallOptions.of(self, wanted))

    def _chunks(self, request: ChatRequest) -> Iterator[AIMessageChunk]:
        for retries_left in reversed(range(self.max_retries + 1)):
            has_begun = False
            try:
                for chunk in self._source.stream(request):
                    has_begun = True
                    yield chunk
            except Overloaded as error:
                if has_begun or not retries_left:
                    raise
                time.sleep(error.retry_after_seconds)
            else:
                return

    async def _achunks(self, request: ChatRequest) -> AsyncIterator[AIMessageChunk]:
        for retries_left in reversed(range(self.max_retries + 1)):
            has_begun = False
            try:
                async with aclosing(self._source.astream(request)) as chunks:
                    async for chunk in chunks:
                        has_begun = True
                        yield chunk
            except Overloaded as error:
                if has_begun or not retries_left:
                    raise
                await asyncio.sleep(error.retry_after_seconds)
            else:
                return


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _tool_choice(asked: dict[str, Any] | str | bool | None, names: list[str]) -> dict[str, Any]:
    """LangChain's words for a rule in OpenAI's; nothing where there is none."""
    if asked is None or asked is False:
        return {}
    if asked is True or asked == "any":
        return {"tool_choice": "required"}
    if isinstance(asked, str) and asked in names:
        return {"tool_choice": {"type": "function", "function": {"name": asked}}}
    if asked in ("auto", "none", "required") or isinstance(asked, dict):
        return {"tool_choice": asked}
    raise InvalidInput(f"tool_choice: no tool has the name {asked[:64]}")
