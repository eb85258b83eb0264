"""The engine that callers see: requests become sequences of the loop, and its adapters load.

Knows requests, renderers and adapters; knows nothing of conversations, feedback or releases, nor of
how a model computes.
"""

from __future__ import annotations

import threading
from collections import abc
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic, TypeVar

from engine.errors import InvalidInput, UnknownId
from engine.messages import Message, tools_of
from engine.models.catalogue import BaseModel
from engine.prompts.calls.formats import CallFormat
from engine.prompts.interface import ChatRenderer
from engine.request import EmbeddingRequest, GenerationRequest, Score, ScoreRequest, TextEmbedding
from engine.serving.embedding_task import EmbeddingTask
from engine.serving.generation_task import GenerationTask
from engine.serving.grammar import GrammarCompiler, GrammarMatcher
from engine.serving.loop import EngineLoop
from engine.serving.prompt import (
    TokenizedPrompt,
    fit_prompt,
    raw_ids,
    require_context_room,
    require_known_ids,
)
from engine.serving.runner import ModelRunner
from engine.serving.scoring_task import ScoringTask
from engine.serving.sequence import Adapter, Sequence
from engine.serving.stream import QueuedStream
from engine.serving.task import Task
from engine.time_slices import YieldToEngine
from engine.tools import ToolChoice

Runner = TypeVar("Runner", bound=ModelRunner)


class ServingEngine(Generic[Runner]):
    """Implements `engine.request.Engine` with a runner."""

    def __init__(
        self,
        base: BaseModel,
        renderer: ChatRenderer,
        runner: Runner,
        *,
        max_rows: int,
        max_queue: int,
    ) -> None:
        self.base = base
        self.renderer = renderer
        self.runner = runner
        padding_ids = renderer.ids_without_token(runner.vocabulary)
        self.loop = EngineLoop(runner, padding_ids, max_rows=max_rows, max_queue=max_queue)
        self._grammars = GrammarCompiler(renderer, runner.vocabulary)
        self._loading = threading.Lock()  # one adapter is loaded at a time

    @property
    def base_digest(self) -> str:
        """See `Engine`."""
        return self.base.digest

    @property
    def context_tokens(self) -> int:
        """See `Engine`."""
        return self.runner.context_tokens

    @property
    def alive(self) -> bool:
        """See `Engine`."""
        return self.loop.alive

    @property
    def active_streams(self) -> int:
        """See `Engine`; scores count, too."""
        return self.loop.active_sequences

    @property
    def adapters(self) -> frozenset[str]:
        """Digests of the adapters that are loaded."""
        return frozenset(self.loop.adapters)

    @property
    def thinks_unasked(self) -> bool | None:
        """See `Engine`."""
        return self.renderer.thinks_unasked

    @property
    def call_format(self) -> CallFormat:
        """See `Engine`."""
        return self.renderer.call_format

    def count_prompt_tokens(
        self, messages: abc.Sequence[Message], thinking: bool | None = None
    ) -> int:
        """See `Engine`."""
        return len(self.renderer.prompt(messages, thinking=thinking))

    def request_tokens(self, request: GenerationRequest) -> int:
        """See `Engine`."""
        context = self._context_beside(self._adapter(request.adapter))
        return len(fit_prompt(request, self.renderer, context).ids)

    def submit(self, request: GenerationRequest) -> QueuedStream:
        """See `Engine`."""
        return self.submit_many([request])[0]

    def submit_many(self, requests: abc.Sequence[GenerationRequest]) -> list[QueuedStream]:
        """See `Engine`: all are queued or none."""
        tasks: list[GenerationTask] = []
        sequences: list[Sequence] = []
        for request in requests:
            request.sampling.require_known_tokens(self.runner.vocabulary)
            adapter = self._adapter(request.adapter)
            prompt = fit_prompt(request, self.renderer, self._context_beside(adapter))
            self._require_readable(request, prompt.ids)
            grammar = self._grammar(request, prompt)
            tasks.append(GenerationTask(request, prompt, self.renderer, grammar))
            sequences.append(self._sequence(tasks[-1], adapter, request.user))
        self.loop.submit(sequences)
        return [task.stream for task in tasks]

    def score(self, requests: abc.Sequence[ScoreRequest]) -> list[Score]:
        """See `Engine`: computed between the tokens of running streams."""
        tasks: list[ScoringTask] = []
        sequences: list[Sequence] = []
        for request in requests:
            rendered = self.renderer.pair(
                request.messages, request.completion, complete=request.complete
            )
            adapter = self._adapter(request.adapter)
            context = self._context_beside(adapter)
            require_context_room(len(rendered.input_ids), context, new_tokens=0)
            tasks.append(ScoringTask(rendered))
            if rendered.completion_ids:
                sequences.append(self._sequence(tasks[-1], adapter))
            else:
                tasks[-1].future.set_result(Score(()))
        self.loop.submit(sequences)
        return [task.future.result() for task in tasks]

    def embed(self, requests: abc.Sequence[EmbeddingRequest]) -> list[TextEmbedding]:
        """See `Engine`: computed between the tokens of running streams."""
        tasks: list[EmbeddingTask] = []
        sequences: list[Sequence] = []
        for request in requests:
            adapter = self._adapter(request.adapter)
            context, name = self._context_beside(adapter), request.name
            ids = raw_ids(request.prompt, self.renderer, context, name=name)
            require_context_room(len(ids), context, new_tokens=0, name=name)
            self._require_computable(ids, name)
            tasks.append(EmbeddingTask(ids))
            sequences.append(self._sequence(tasks[-1], adapter, request.user))
        self.loop.submit(sequences)
        return [task.future.result() for task in tasks]

    def background(self) -> AbstractContextManager[YieldToEngine]:
        """See `Engine`."""
        return self.loop.background()

    def load_adapter(self, digest: str, folder: Path) -> None:
        """See `Engine`."""
        with self._loading:
            if digest not in self.loop.adapters:
                self.loop.adapters[digest] = self.runner.open_adapter(digest, folder, self.loop)

    def unload_adapter(self, digest: str) -> None:
        """See `Engine`; raises `Conflict` while a stream decodes with it."""
        self.loop.remove_adapter(digest)

    def close(self) -> None:
        """See `Engine`."""
        self.loop.close()

    def _adapter(self, digest: str | None) -> Adapter | None:
        """The loaded adapter; raises `UnknownId`."""
        if digest is None:
            return None
        adapter = self.loop.adapters.get(digest)
        if adapter is None:
            raise UnknownId(f"no adapter {digest[:80]} is loaded")
        return adapter

    def _grammar(
        self, request: GenerationRequest, prompt: TokenizedPrompt
    ) -> GrammarMatcher | None:
        """The matcher of one answer; raises `InvalidInput`."""
        if tools := tools_of(request.messages):
            choice = request.sampling.tool_choice or ToolChoice()
            # A call that is forced follows a thought only in models that are known to think
            thinks = self.thinks_unasked is not None and request.thinking is not False
            return self._grammars.compile_calls(
                tools, choice, opening=prompt.opening, may_think=choice.mode == "auto" or thinks
            )
        if request.sampling.grammar is None:
            return None
        if prompt.opening:
            raise InvalidInput("the answer begins with a thought, so it cannot follow a grammar")
        return self._grammars.compile(request.sampling.grammar)

    def _require_readable(self, request: GenerationRequest, ids: tuple[int, ...]) -> None:
        """Raise `InvalidInput` for a raw prompt that the model cannot compute or tell of."""
        if request.prompt is None:
            return
        both_ways = self._require_computable(ids, "the prompt")
        if both_ways and request.echo and request.sampling.logprobs is not None:
            raise InvalidInput(
                "this model reads a prompt both ways, so its tokens have no log-probabilities"
            )

    def _require_computable(self, ids: tuple[int, ...], name: str) -> int:
        """The leading tokens that see each other both ways; raises `InvalidInput`."""
        require_known_ids(ids, self.runner.vocabulary, name=name)
        return self.runner.prefix_tokens(ids)

    def _context_beside(self, adapter: Adapter | None) -> int:
        """Tokens of the context that an adapter's virtual ones leave."""
        return self.context_tokens - (0 if adapter is None else adapter.virtual_tokens)

    def _sequence(self, task: Task, adapter: Adapter | None, user: str = "") -> Sequence:
        return Sequence(task, adapter, user, whole_prompt=self.runner.whole_prompts)
