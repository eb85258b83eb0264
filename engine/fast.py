"""The fast engine: our own decoder, quantized weights, one batch of many sequences and adapters.

One thread owns the model and the cache. Callers queue sequences; between two steps they join and
leave. An adapter is loaded on its caller's thread, in pieces between two steps, and becomes usable
by one assignment. Knows nothing of conversations, feedback or releases.
"""

from __future__ import annotations

import threading
import time
from collections import abc
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from engine.adapters.lora import LoraAdapter, StepAdapters
from engine.adapters.soft_prompt import is_soft_prompt, read_soft_prompt
from engine.errors import (
    Conflict,
    DeadlineExceeded,
    EngineFailure,
    ModelUnavailable,
    Overloaded,
    UnknownId,
)
from engine.hardware import detect
from engine.kernels.interface import PAGE_TOKENS, AttentionMetadata
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.models.checkpoint import open_checkpoint
from engine.models.families import architecture_of
from engine.models.kernel_selection import select_kernels
from engine.models.loading import WeightFormat, load_decoder
from engine.models.memory import require_memory, trim_heap
from engine.prompts.load import AnyRenderer, load_renderer
from engine.quantization import Quantization
from engine.request import GenerationRequest, Score, ScoreRequest
from engine.serving.answer import GenerationTask
from engine.serving.commands import Commands
from engine.serving.held_prefixes import hold_prefix
from engine.serving.kv_cache import PagedCache, PinnedPrefix, page_bytes
from engine.serving.prompt import fit_prompt, require_room
from engine.serving.sampler import forbid
from engine.serving.scheduler import ScheduledChunk, Scheduler, Sequence
from engine.serving.scoring import ScoringTask
from engine.serving.stream import QueuedStream
from engine.serving.watchdog import LOOK_SECONDS, Watchdog
from engine.time_slices import TimeSlices, YieldToEngine

# Of the memory that is free at start, what keys and values may take unless told otherwise
CACHE_SHARE = 0.2
MOST_CACHE_BYTES = 2 << 30


class FastEngine:
    """Continuous batching over our own decoder."""

    def __init__(
        self,
        base: BaseModel,
        *,
        renderer: AnyRenderer | None = None,
        kernel_cache: Path,
        quantization: Quantization = "none",
        dtype: torch.dtype | None = None,
        max_rows: int = 32,
        max_queue: int = 256,
        kv_cache_bytes: int | None = None,
        prefix_cache: bool = True,
    ) -> None:
        """`renderer`: the checkpoint's, where it is loaded already; `kernel_cache`: where compiled
        kernels are kept; `kv_cache_bytes`: the budget for keys and values, a share of the free
        memory where None is given.

        Raises `ModelUnavailable` for a model that this engine does not cover.
        """
        hardware = detect()
        self._base = base
        self._device = hardware.device
        self._renderer = renderer or load_renderer(base.folder)
        checkpoint = open_checkpoint(base.folder, base.gguf if quantization != "none" else None)
        architecture = architecture_of(base.folder)
        self._config = architecture.config
        self._layout, self._positions = architecture.layout, architecture.positions
        self._padding_ids = torch.tensor(
            self._renderer.ids_without_token(self._config.vocabulary), dtype=torch.long
        )
        require_memory(checkpoint, architecture, quantization)
        choice = select_kernels(self._device, kernel_cache, architecture.widths)
        self.kernels_reason = choice.reason
        self._native = choice.native if quantization != "none" else None
        with torch.inference_mode():
            self._decoder = load_decoder(
                checkpoint,
                architecture,
                WeightFormat(quantization, self._device, dtype or hardware.dtype, choice),
            )
        del checkpoint
        trim_heap()
        self._cache = self._make_cache(quantization, kv_cache_bytes, share=prefix_cache)
        self._scheduler = Scheduler(self._cache, max_rows=max_rows)
        self._max_queue = max_queue
        self._adapters: dict[str, LoraAdapter | PinnedPrefix] = {}
        self._commands = Commands()
        self._time_slices = TimeSlices()
        self._inbox: list[Sequence] = []
        self._wake = threading.Condition()
        self._closing = False
        self._watchdog = Watchdog(self._give_up)
        self._thread = threading.Thread(target=self._run, name="burnish-engine", daemon=True)
        self._thread.start()

    # What callers use, from any thread

    @property
    def base_digest(self) -> str:
        """Digest of the base weights and tokenizer."""
        return self._base.digest

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens: what the model or the cache's budget can hold
        beside the virtual tokens of loaded adapters."""
        held = (a for a in list(self._adapters.values()) if isinstance(a, PinnedPrefix))
        pages = self._cache.page_count - sum(len(prefix.block_table.pages) for prefix in held)
        return min(self._config.context_tokens, pages * PAGE_TOKENS)

    @property
    def alive(self) -> bool:
        """Whether the engine makes tokens: its thread runs and no step hangs."""
        return self._thread.is_alive() and not self._closing and not self._watchdog.expired

    @property
    def active_streams(self) -> int:
        """Sequences running or waiting."""
        scheduler = self._scheduler
        return len(scheduler.running) + len(scheduler.waiting) + len(self._inbox)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the decoder's matrices."""
        return self._decoder.weight_bytes

    @property
    def adapters(self) -> frozenset[str]:
        """Digests of the adapters that are loaded."""
        return frozenset(self._adapters)

    @property
    def thinks_unasked(self) -> bool | None:
        """See `Engine`."""
        return self._renderer.thinks_unasked

    def count_prompt_tokens(
        self, messages: abc.Sequence[Message], thinking: bool | None = None
    ) -> int:
        """Tokens of the rendered prompt."""
        return len(self._renderer.prompt(messages, thinking=thinking))

    def submit(self, request: GenerationRequest) -> QueuedStream:
        """Queue one answer."""
        return self.submit_many([request])[0]

    def submit_many(self, requests: abc.Sequence[GenerationRequest]) -> list[QueuedStream]:
        """Queue answers together, all or none."""
        answers = []
        for request in requests:
            request.sampling.require_known_tokens(self._config.vocabulary)
            prompt = fit_prompt(request, self._renderer, self._context_beside(request.adapter))
            answer = GenerationTask(request, prompt, self._renderer)
            answers.append(self._sequence(answer, request.adapter, request.user))
        self._enqueue(answers)
        return [s.work.stream for s in answers if isinstance(s.work, GenerationTask)]

    def score(self, requests: abc.Sequence[ScoreRequest]) -> list[Score]:
        """Log-probabilities of completions, computed between the tokens of running streams."""
        scores: list[Future[Score]] = []
        sequences: list[Sequence] = []
        for request in requests:
            rendered = self._renderer.pair(
                request.messages, request.completion, complete=request.complete
            )
            require_room(len(rendered.input_ids) - 1, self._context_beside(request.adapter))
            scoring = ScoringTask(rendered)
            sequence = self._sequence(scoring, request.adapter, user="")
            if rendered.completion_ids:
                sequences.append(sequence)
            else:
                scoring.future.set_result(Score(()))
            scores.append(scoring.future)
        self._enqueue(sequences, bounded=False)
        return [future.result() for future in scores]

    def background(self) -> AbstractContextManager[YieldToEngine]:
        """See `Engine`: a step waits for at most one piece, a piece for at most one step."""
        return self._time_slices.slices()

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Hold a verified PEFT adapter under its digest.

        Raises `Overloaded` where a soft prompt finds no room in the cache.
        """
        if digest in self._adapters:
            return
        if is_soft_prompt(folder):
            prompt = read_soft_prompt(
                folder, self._base.folder, self._config.heads, self._layout, device=self._device
            )
            prefix = hold_prefix(self._queue_call, self._decoder, self._cache, digest, prompt)
            with self._wake:
                if self._adapters.setdefault(digest, prefix) is not prefix:  # another was faster
                    self._queue_call(partial(self._cache.free, prefix.block_table))
            return
        with self.background() as yield_to_engine:
            self._adapters[digest] = LoraAdapter(  # one assignment: no step sees half of it
                folder,
                self._layout,
                device=self._device,
                native=self._native is not None,
                yield_to_engine=yield_to_engine,
            )

    def unload_adapter(self, digest: str) -> None:
        """Free an adapter; raises `Conflict` while a stream decodes with it."""
        with self._wake:
            if not self.alive:
                raise EngineFailure("the engine is not running")
            users = (s for s in self._everybody() if not s.work.ended)
            if any(s.adapter_digest == digest for s in users):
                raise Conflict("a stream still decodes with this adapter")
            adapter = self._adapters.pop(digest, None)
            if isinstance(adapter, PinnedPrefix):
                self._queue_call(partial(self._cache.free, adapter.block_table))

    def close(self) -> None:
        """End every stream, end the thread; one that hangs is left behind."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        while self._thread.is_alive() and not self._watchdog.expired:
            self._thread.join(LOOK_SECONDS)
        self._fail_all(EngineFailure("the engine stopped"))
        self._watchdog.close()

    # The engine's thread

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    with self._time_slices.slice(), self._watchdog.watching():
                        self._step()
        finally:
            with self._wake:  # whoever is queueing now is failed below, the next one is refused
                self._closing = True
            self._fail_all(EngineFailure("the engine stopped"))

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(
                lambda: self._closing or self._inbox or self._commands or not self._scheduler.idle
            )
            self._scheduler.waiting.extend(self._inbox)
            self._inbox.clear()
            return not self._closing

    def _step(self) -> None:
        """The algorithm: end what must end, plan, compute, hand out."""
        self._commands.run_one()
        try:
            self._end_late_and_cancelled()
            begun = time.perf_counter()
            chunks = self._scheduler.schedule()
            if not chunks:
                return
            self._watchdog.expect(self._scheduler.expected_seconds(chunks))
            logits, wanted = self._forward(chunks)
            self._scheduler.complete(chunks, time.perf_counter() - begun)
            self._hand_out(chunks, logits, wanted)
        except Exception as error:  # noqa: BLE001 - the thread's edge: no stream may be left waiting
            # Who only waits has done nothing to it, unless nobody else is left to blame
            self._fail([*self._scheduler.running] or self._everybody(), _failure(error))

    def _end_late_and_cancelled(self) -> None:
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            work = sequence.work
            if isinstance(work, GenerationTask):
                if work.stream.cancelled:
                    work.finish("cancelled")
                elif work.is_late:
                    work.fail(DeadlineExceeded("the answer was not done by its deadline"))

    def _forward(self, chunks: abc.Sequence[ScheduledChunk]) -> tuple[Tensor, list[int]]:
        """Logits of every row that somebody wants, and how many each share wants."""
        ids: list[int] = []
        positions: list[Tensor] = []
        slots: list[Tensor] = []
        sequences: list[tuple[int, int, int, int]] = []
        rows: list[int] = []
        wanted: list[int] = []
        for chunk in chunks:
            sequence, count = chunk.sequence, chunk.end - chunk.begin
            prompt_ids = sequence.prompt_ids
            assert sequence.block_table is not None
            first = len(ids)
            ids += sequence.ids(chunk.begin, chunk.end)
            positions.append(self._positions(prompt_ids, chunk.begin, chunk.end))
            slots.append(sequence.block_table.slots(chunk.begin, chunk.end))
            sequences.append((first, count, chunk.begin, self._positions.prefix(prompt_ids)))
            wants = _wanted(chunk)
            rows += [first + token for token in wants]
            wanted.append(len(wants))
        cos, sin = self._decoder.angles(torch.cat(positions).to(self._device))
        step = AttentionMetadata(
            torch.tensor(sequences),
            _page_table(
                [chunk.sequence.block_table.pages for chunk in chunks if chunk.sequence.block_table]
            ),
            torch.cat(slots).to(self._device),
            cos,
            sin,
        )
        logits = self._decoder(
            torch.tensor(ids, device=self._device),
            step,
            self._cache.layers,
            torch.tensor(rows, dtype=torch.long, device=self._device),
            self._step_adapters(chunks),
        )
        return logits.cpu(), wanted

    def _step_adapters(self, chunks: abc.Sequence[ScheduledChunk]) -> StepAdapters | None:
        if all(chunk.sequence.adapter is None for chunk in chunks):
            return None
        rows = [s.sequence.adapter for s in chunks for _ in range(s.end - s.begin)]
        return StepAdapters(rows, self._native)

    def _hand_out(
        self, chunks: abc.Sequence[ScheduledChunk], logits: Tensor, wanted: abc.Sequence[int]
    ) -> None:
        allowed = forbid(logits, self._padding_ids)  # scores too: see `Score`
        likeliest = allowed.argmax(-1).tolist()
        row = 0
        for chunk, count in zip(chunks, wanted, strict=True):
            work = chunk.sequence.work
            try:
                if count and isinstance(work, ScoringTask):
                    work.take(allowed[row : row + count])
                elif count and isinstance(work, GenerationTask):
                    work.take(allowed[row], likeliest[row] if work.is_greedy else None)
            except Exception as error:  # noqa: BLE001 - one row's fault, such as NaN, is its own
                work.fail(_failure(error))
            row += count

    def _everybody(self) -> list[Sequence]:
        """In the direction in which sequences move, so that none is missed."""
        return [*self._inbox, *self._scheduler.waiting, *self._scheduler.running]

    def _fail(self, sequences: abc.Sequence[Sequence], failure: EngineFailure) -> None:
        for sequence in sequences:
            sequence.work.fail(failure)

    def _give_up(self) -> None:
        """Called by the watchdog when a step hangs: nobody may wait for a token for ever."""
        self._fail_all(EngineFailure("the engine hangs; restart the server"))

    def _fail_all(self, failure: EngineFailure) -> None:
        self._fail(self._everybody(), failure)
        self._commands.fail(failure)

    # Helpers

    def _make_cache(
        self, quantization: Quantization, budget: int | None, *, share: bool
    ) -> PagedCache:
        dtype = torch.float32 if quantization == "none" else torch.float16
        available = min(MOST_CACHE_BYTES, int(CACHE_SHARE * psutil.virtual_memory().available))
        each = page_bytes(self._config.layer_count, self._config.heads, dtype)
        budget = available if budget is None else budget
        page_count = budget // each
        if page_count < 1:
            raise ModelUnavailable(
                f"{budget} bytes for keys and values hold not even {PAGE_TOKENS} "
                f"tokens, which take {each}"
            )
        return PagedCache(
            self._config.layer_count,
            self._config.heads,
            page_count=page_count,
            dtype=dtype,
            device=self._device,
            share=share and not self._config.prefix_lm,
        )

    def _sequence(
        self, work: GenerationTask | ScoringTask, adapter: str | None, user: str
    ) -> Sequence:
        loaded = None if adapter is None else self._adapters.get(adapter)
        if adapter is not None and loaded is None:
            raise UnknownId(f"no adapter {adapter[:80]} is loaded")
        lora, prefix = (None, loaded) if isinstance(loaded, PinnedPrefix) else (loaded, None)
        return Sequence(work, adapter, lora, user, self._config.prefix_lm, prefix)

    def _context_beside(self, adapter: str | None) -> int:
        """Tokens that the context holds beside an adapter's virtual ones."""
        loaded = None if adapter is None else self._adapters.get(adapter)
        return self.context_tokens - (loaded.tokens if isinstance(loaded, PinnedPrefix) else 0)

    def _queue_call(self, call: Callable[[], Any]) -> Future[Any]:
        """Have a call run on the engine's thread, where alone the cache may be changed."""
        with self._wake:
            if not self.alive:
                raise EngineFailure("the engine is not running")
            future = self._commands.put(call)
            self._wake.notify()
        return future

    def _enqueue(self, sequences: abc.Sequence[Sequence], *, bounded: bool = True) -> None:
        with self._wake:
            if not self.alive:
                raise EngineFailure("the engine is not running")
            for s in sequences:  # its pages may have been given back since it was looked up
                loaded = self._adapters.get(s.adapter_digest or "")
                if s.prefix is not None and loaded is not s.prefix:
                    raise UnknownId("the adapter was freed while the answer was made ready")
            waiting = [*self._inbox, *self._scheduler.waiting]
            queued = sum(
                isinstance(s.work, GenerationTask) for s in waiting
            )  # who scores waits by itself
            if bounded and queued + len(sequences) > self._max_queue:
                raise Overloaded(f"{queued} answers are waiting; try again later")
            self._inbox.extend(sequences)
            self._wake.notify()


def _failure(error: Exception) -> EngineFailure:
    return EngineFailure(f"{type(error).__name__}: {error}")


def _wanted(chunk: ScheduledChunk) -> range:
    """The tokens of a share whose logits are wanted, counted from its first."""
    work, count = chunk.sequence.work, chunk.end - chunk.begin
    if isinstance(work, ScoringTask):
        begin = chunk.begin - chunk.sequence.virtual_tokens
        wanted = work.wanted(begin, begin + count)
        return range(wanted.start - begin, wanted.stop - begin)
    return range(count - 1, count) if chunk.completes else range(0)


def _page_table(pages: abc.Sequence[abc.Sequence[int]]) -> Tensor:
    """(sequences, most pages) int32; what a sequence does not have is never read."""
    most = max(map(len, pages))
    return torch.tensor([[*own, *[0] * (most - len(own))] for own in pages], dtype=torch.int32)
