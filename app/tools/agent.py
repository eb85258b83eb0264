"""An answer that may call tools: the model is asked, its calls are run, and it is asked again.

The loop of an agent over LangChain's chat model and tools. It is one function (`Agent._loop`);
`create_agent` of the package langchain is the same loop as a graph with checkpoints, and needs six
more packages for it. Knows the model, tools and streams; knows nothing of conversations and pages.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCall, ToolMessage

from app.tools.called import CalledTool
from app.tools.running import ToolRun
from app.tools.toolbox import ToolOffer
from engine.errors import BurnishError
from engine.langchain import ChatBurnish
from engine.langchain.messages import whole_answer
from engine.prompts.reasoning import CLOSE, OPEN
from engine.request import (
    Engine,
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    Stream,
    StreamEvent,
    TextDelta,
)
from engine.tools import CallReader, spaced_json

STEP_BREAK = "\n\n"  # words of the model before and after its calls


class Agent:
    """A stream like the engine's, over as many of its answers as the calls need.

    `text` and `called` are what is written and called so far; its events say when to look at them.
    `prompt_tokens` are those of the first request, which is queued here, so that its refusal is
    raised before anything is stored. Raises the errors of `Engine.submit`.
    """

    def __init__(self, engine: Engine, request: GenerationRequest, offer: ToolOffer) -> None:
        self.called: tuple[CalledTool, ...] = ()
        self._offer = offer
        self._engine = _EngineOfOneAnswer(engine, request)
        self._model = ChatBurnish(engine=self._engine)
        self._thoughts: list[str] = []
        self._words: list[str] = []
        self._run: ToolRun | None = None
        self._cancelled = False
        self._completion_tokens = 0
        self._messages: list[Any] = [
            replace(message, tools=()).as_dict() for message in request.messages
        ]
        self._events = self._read()

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._events

    @property
    def prompt_tokens(self) -> int:
        """See `Stream`."""
        return self._engine.first.prompt_tokens

    @property
    def text(self) -> str:
        """Thoughts and words so far, as a model writes them."""
        thought, words = (STEP_BREAK.join(filter(None, p)) for p in (self._thoughts, self._words))
        return f"{OPEN}{thought}{CLOSE}{words}" if thought else words

    def cancel(self) -> None:
        """End the answer within a step, and wait for no tool."""
        self._cancelled = True
        self._engine.cancel()
        if run := self._run:
            run.stop()

    def _read(self) -> Iterator[StreamEvent]:
        try:
            reason = yield from self._loop()
            yield Finished(
                "cancelled" if self._cancelled else reason,
                self.text,
                self._engine.newest.prompt_tokens,
                self._completion_tokens,
            )
        except BurnishError as error:
            yield Failed(error, self.text)
        finally:
            self._offer.close()

    def _loop(self) -> Generator[StreamEvent, None, FinishReason]:
        """Ask and call, at most `max_steps` times; then the model may only speak."""
        functions = [function.as_dict() for function in self._offer.functions]
        for _ in range(self._offer.limits.max_steps):
            answer = yield from self._ask(functions)
            if self._cancelled or not answer.tool_calls:
                return _reason_of(answer)
            self._messages.append(answer)
            for call in answer.tool_calls:
                result = yield from self._call(call)
                self._messages.append(result)
            if self._cancelled:
                return "cancelled"
        answer = yield from self._ask(())
        return _reason_of(answer)

    def _ask(self, functions: Sequence[dict[str, Any]]) -> Generator[StreamEvent, None, AIMessage]:
        """One answer of the model, whose words are shown as they come."""
        model = self._model.bind_tools(functions) if functions else self._model
        self._thoughts.append("")
        self._words.append("")
        chunks: list[AIMessageChunk] = []
        for chunk in model.stream(self._messages):
            assert isinstance(chunk, AIMessageChunk)
            chunks.append(chunk)
            self._thoughts[-1] += chunk.additional_kwargs.get("reasoning_content", "")
            self._words[-1] += str(chunk.content)
            yield TextDelta("")
        self._words[-1] = self._words[-1].strip("\n")
        answer = whole_answer(chunks)
        if answer.usage_metadata:
            self._completion_tokens += answer.usage_metadata["output_tokens"]
        return answer

    def _call(self, call: ToolCall) -> Generator[StreamEvent, None, ToolMessage]:
        """Run one call; its result is a message to the model."""
        before = self.called
        made = CalledTool(call["name"], spaced_json(call["args"]))
        self.called = (*before, made)
        yield TextDelta("")  # makes the reader look at `called`
        if run := self._offer.calls.get(call["name"]):
            self._run = ToolRun(call["name"], run, call["args"], self._offer.limits)
            if self._cancelled:
                self._run.stop()
            result, status = self._run.outcome()
        else:
            result, status = "There is no such tool.", "failed"
        self.called = (*before, replace(made, result=result, status=status))
        yield TextDelta("")
        return ToolMessage(result, tool_call_id=call["id"])


class _EngineOfOneAnswer:
    """The part of an engine that `ChatBurnish` uses, for the requests of one answer.

    They have the sampling, the adapter and the person of `request`. The first is queued at once.
    """

    def __init__(self, engine: Engine, request: GenerationRequest) -> None:
        self.first = self.newest = engine.submit(request)
        self._engine = engine
        self._request = request
        self._is_next_first = True
        self._cancelled = False

    @property
    def base_digest(self) -> str:
        """See `Engine`."""
        return self._engine.base_digest

    @property
    def call_format(self) -> CallReader:
        """See `Engine`."""
        return self._engine.call_format

    def submit(self, made: GenerationRequest) -> Stream:
        """See `Engine`."""
        if self._is_next_first:
            self._is_next_first = False
            return self.first
        sampling = replace(self._request.sampling, tool_choice=made.sampling.tool_choice)
        request = replace(self._request, messages=made.messages, sampling=sampling)
        self.newest = self._engine.submit(request)
        if self._cancelled:
            self.newest.cancel()
        return self.newest

    def cancel(self) -> None:
        """End the answer that is being made, and each later one."""
        self._cancelled = True
        self.newest.cancel()


def _reason_of(answer: AIMessage) -> FinishReason:
    return "length" if answer.response_metadata["finish_reason"] == "length" else "stop"
