"""The reference engine: plain transformers and peft, for any decoder-only architecture.

One thread owns the model. Callers queue streams and commands; between two steps nothing is
shared, so an adapter can be loaded or freed while streams run, and each row decodes with the
adapter its stream began with (peft's mixed batches). It is the oracle of the parity tests: simple
before fast. It knows nothing of conversations, feedback or releases.
"""

from __future__ import annotations

import inspect
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache
from transformers.utils import logging as transformers_logging

from engine.adapters import virtual_tokens
from engine.adapters.mixed_batch import adapters_of_rows
from engine.adapters.soft_prompt import is_soft_prompt
from engine.errors import (
    Conflict,
    DeadlineExceeded,
    EngineFailure,
    InvalidBundle,
    ModelUnavailable,
    Overloaded,
    UnknownId,
)
from engine.hardware import detect
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.models.context import context_tokens
from engine.prompts.load import AnyRenderer, load_renderer
from engine.quantization import Quantization
from engine.request import GenerationRequest, Score, ScoreRequest
from engine.serving.answer import GenerationTask
from engine.serving.prompt import TokenizedPrompt, fit_prompt, require_room
from engine.serving.row_batch import RowBatch, new_cache
from engine.serving.sampler import forbid
from engine.serving.stream import QueuedStream
from engine.time_slices import YieldToEngine, do_not_yield

T = TypeVar("T")
BASE = "__base__"  # peft's name for "no adapter" in a mixed batch


class ReferenceEngine:
    """Continuous batching over a transformers model."""

    def __init__(
        self,
        base: BaseModel,
        *,
        renderer: AnyRenderer | None = None,
        quantization: Quantization = "none",
        dtype: torch.dtype | None = None,
        max_rows: int = 32,
        max_queue: int = 256,
    ) -> None:
        hardware = detect()
        self._base = base
        self._quantization = quantization
        self._device = hardware.device
        self._dtype = dtype or hardware.dtype
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._renderer = renderer or load_renderer(base.folder)
        self._model: Any = _load_model(base, quantization, self._dtype, self._device)
        self._accepted = frozenset(inspect.signature(self._model.forward).parameters)
        self._config = self._model.config.get_text_config()
        self._padding_ids = torch.tensor(
            self._renderer.ids_without_token(self._config.vocab_size), dtype=torch.long
        )
        self._adapters: set[str] = set()  # LoRA, in the model
        self._soft_prompts: dict[str, Cache] = {}  # what their rows begin with
        self._inbox: deque[_Row] = deque()
        self._commands: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = (
            queue.SimpleQueue()
        )
        self._rows: list[_Row] = []
        self._batch = RowBatch()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="burnish-engine", daemon=True)
        self._thread.start()

    # What callers use, from any thread

    @property
    def base_digest(self) -> str:
        """Digest of the base weights and tokenizer."""
        return self._base.digest

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return context_tokens(self._config)

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive() and not self._closing

    @property
    def active_streams(self) -> int:
        """Streams running or waiting."""
        return len(self._rows) + len(self._inbox)

    @property
    def adapters(self) -> frozenset[str]:
        """Digests of the adapters that are loaded."""
        return frozenset(self._adapters | self._soft_prompts.keys())

    @property
    def thinks_unasked(self) -> bool | None:
        """See `Engine`."""
        return self._renderer.thinks_unasked

    def count_prompt_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Tokens of the rendered prompt."""
        return len(self._renderer.prompt(messages, thinking=thinking))

    def submit(self, request: GenerationRequest) -> QueuedStream:
        """Queue one answer."""
        return self.submit_many([request])[0]

    def submit_many(self, requests: Sequence[GenerationRequest]) -> list[QueuedStream]:
        """Queue answers together, all or none."""
        rows = [self._make_row(request) for request in requests]
        with self._wake:
            if not self.alive:
                raise EngineFailure("the engine is not running")
            if len(self._inbox) + len(rows) > self._max_queue:
                raise Overloaded(f"{len(self._inbox)} answers are waiting; try again later")
            self._inbox.extend(rows)
            self._wake.notify()
        return [row.stream for row in rows]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-probabilities of completions; running streams step on between two of them."""
        for request in requests:
            self._check_adapter(request.adapter)
        return [self._call(partial(self._score, request)) for request in requests]

    def background(self) -> AbstractContextManager[YieldToEngine]:
        """See `Engine`; here such work runs beside the steps."""
        return nullcontext(do_not_yield)

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Hold a verified PEFT adapter under its digest."""
        import peft  # noqa: F401 - takes seconds; here it stalls no stream, nor a start without it

        self._call(partial(self._load_adapter, digest, folder))

    def unload_adapter(self, digest: str) -> None:
        """Free an adapter; raises `Conflict` while a stream decodes with it."""
        self._call(partial(self._unload_adapter, digest))

    def close(self) -> None:
        """Cancel every stream, end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    # The engine's thread

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._step()
        finally:
            self._closing = True
            for row in [*self._rows, *self._inbox]:
                row.fail(EngineFailure("the engine stopped"))
            while not self._commands.empty():
                self._commands.get()[0].set_exception(EngineFailure("the engine stopped"))

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(
                lambda: self._closing or self._rows or self._inbox or not self._commands.empty()
            )
            return not self._closing

    def _step(self) -> None:
        """The algorithm: one command, one prefill, one token for every row."""
        self._run_command()
        try:
            self._leave()
            self._admit()
            self._decode()
        except Exception as error:  # noqa: BLE001 - the thread's edge: no stream may be left waiting
            failure = EngineFailure(f"{type(error).__name__}: {error}")
            for row in self._rows:
                row.fail(failure)
            self._rows, self._batch = [], RowBatch()

    def _run_command(self) -> None:
        if self._commands.empty():
            return
        future, command = self._commands.get()
        try:
            future.set_result(command())
        except BaseException as error:  # noqa: BLE001 - carried to the caller, who waits for it
            future.set_exception(error)

    def _leave(self) -> None:
        """Drop rows that have ended, were cancelled or are late, waiting ones too."""
        for row in [*self._rows, *self._inbox]:
            if row.stream.cancelled:
                row.finish("cancelled")
            elif row.is_late:
                row.fail(DeadlineExceeded("the answer was not done in the time given"))
        with self._wake:
            self._inbox = deque(row for row in self._inbox if not row.ended)
        kept = [index for index, row in enumerate(self._rows) if not row.ended]
        if len(kept) < len(self._rows):
            self._batch.keep(kept)
            self._rows = [self._rows[index] for index in kept]

    def _admit(self) -> None:
        """Prefill one waiting row and let it join."""
        if not self._inbox or len(self._rows) >= self._max_rows:
            return
        row = self._inbox.popleft()
        if row.adapter != BASE and row.adapter not in self.adapters:
            row.fail(UnknownId("the adapter was freed while the answer waited"))
            return
        self._rows.append(row)  # so that a failure below ends this stream too
        cache = self._new_cache(row.adapter)
        ids = torch.tensor([row.prompt_ids], device=self._device)
        logits = self._forward(ids, _mask_after(cache, ids), None, [row.adapter], cache)
        self._batch.join(cache)
        row.take(forbid(logits[0, -1], self._padding_ids))

    def _new_cache(self, adapter: str) -> Cache:
        """The cache of one row, empty or with its adapter's virtual tokens."""
        cache = new_cache()
        if adapter in self._soft_prompts:
            for index, layer in enumerate(self._soft_prompts[adapter].layers):
                cache.update(layer.keys, layer.values, index)
        return cache

    def _decode(self) -> None:
        """One token for every row that has not ended."""
        if any(row.ended for row in self._rows):
            self._leave()
        if not self._rows:
            return
        last = torch.tensor([[row.ids[-1]] for row in self._rows], device=self._device)
        mask, positions = self._batch.grow()
        adapters = [row.adapter for row in self._rows]
        logits = self._forward(last, mask, positions, adapters, self._batch.cache)
        allowed = forbid(logits[:, -1], self._padding_ids)
        for row, row_logits in zip(self._rows, allowed, strict=True):
            row.take(row_logits)

    def _forward(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor | None,
        adapters: list[str],
        cache: Cache | None,
        logits_to_keep: int = 1,
    ) -> Tensor:
        """Logits (rows, kept tokens, vocabulary) on the CPU; `ids` may be input embeddings."""
        wanted: dict[str, Any] = {
            "attention_mask": mask.to(self._device),
            "past_key_values": cache,
            "use_cache": cache is not None,
            "logits_to_keep": logits_to_keep,
        }
        if positions is not None:
            wanted["position_ids"] = positions.to(self._device)
        arguments = {name: value for name, value in wanted.items() if name in self._accepted}
        arguments["inputs_embeds" if ids.is_floating_point() else "input_ids"] = ids
        names = [name if name in self._adapters else BASE for name in adapters]
        with adapters_of_rows(self._model, names) if self._adapters else nullcontext():
            logits: Tensor = self._model(**arguments).logits
        return logits[:, -logits_to_keep:].cpu()

    def _score(self, request: ScoreRequest) -> Score:
        rendered = self._renderer.pair(
            request.messages, request.completion, complete=request.complete
        )
        adapter = request.adapter or BASE
        require_room(len(rendered.input_ids) - 1, self._context_beside(adapter))
        ids = torch.tensor([rendered.input_ids], device=self._device)
        completion = torch.tensor(rendered.completion_ids)
        cache = self._new_cache(adapter) if adapter in self._soft_prompts else None
        logits = self._forward(
            ids,
            _mask_after(cache, ids),
            None,
            [adapter],
            cache,
            logits_to_keep=len(completion) + 1,
        )[0, :-1]
        allowed = forbid(logits, self._padding_ids)
        logprobs = allowed.float().log_softmax(-1).gather(1, completion[:, None])[:, 0]
        return Score(tuple(logprobs.tolist()))

    def _load_adapter(self, digest: str, folder: Path) -> None:
        from peft import PeftModel

        if digest in self.adapters:
            return
        if is_soft_prompt(folder):
            self._soft_prompts[digest] = self._soft_prompt(folder)
            return
        try:
            if self._adapters:
                self._model.load_adapter(folder, adapter_name=digest)
            else:
                self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=digest)
        except Exception as error:
            self._forget_half_loaded(digest)
            raise InvalidBundle([f"peft cannot load it: {error}"]) from error
        self._model.eval()
        self._adapters.add(digest)

    def _soft_prompt(self, folder: Path) -> Cache:
        """The keys and values of an adapter's virtual tokens, from what peft makes of its files."""
        from peft import PeftModel

        if (reason := virtual_tokens.why_not_served_by(self._base.folder)) is not None:
            raise InvalidBundle([reason])
        base = self._model.get_base_model() if self._adapters else self._model
        try:
            prompt = PeftModel.from_pretrained(base, folder).get_prompt(batch_size=1)
        except Exception as error:
            raise InvalidBundle([f"peft cannot load it: {error}"]) from error
        if isinstance(prompt, Cache):
            return prompt
        cache = new_cache()
        embeddings = prompt.to(self._dtype)
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
        self._forward(embeddings, mask, None, [BASE], cache)
        return cache

    def _forget_half_loaded(self, digest: str) -> None:
        """peft changes the model as it loads; take back what a failure left behind."""
        if not self._adapters:
            self._model = _load_model(self._base, self._quantization, self._dtype, self._device)
        elif digest in self._model.peft_config:
            self._model.delete_adapter(digest)

    def _unload_adapter(self, digest: str) -> None:
        if digest not in self.adapters:
            return
        if any(row.adapter == digest and not row.ended for row in [*self._rows, *self._inbox]):
            raise Conflict("a stream still decodes with this adapter")
        if self._soft_prompts.pop(digest, None) is not None:
            return
        self._adapters.discard(digest)
        if self._adapters:
            self._model.delete_adapter(digest)
        else:
            self._model = self._model.unload()  # the base modules come back, untouched

    # Helpers

    def _make_row(self, request: GenerationRequest) -> _Row:
        self._check_adapter(request.adapter)
        request.sampling.require_known_tokens(self._config.vocab_size)
        context = self._context_beside(request.adapter or BASE)
        return _Row(request, fit_prompt(request, self._renderer, context), self._renderer)

    def _context_beside(self, adapter: str) -> int:
        """Tokens that the context holds beside an adapter's virtual ones."""
        prompt = self._soft_prompts.get(adapter)
        return self.context_tokens - (0 if prompt is None else int(prompt.get_seq_length()))

    def _check_adapter(self, digest: str | None) -> None:
        if digest is not None and digest not in self.adapters:
            raise UnknownId(f"no adapter {digest[:80]} is loaded")

    def _call(self, command: Callable[[], T]) -> T:
        future: Future[T] = Future()
        with self._wake:
            if not self.alive:
                raise EngineFailure("the engine is not running")
            self._commands.put((future, command))
            self._wake.notify()
        return future.result()


class _Row(GenerationTask):
    """One answer with the adapter it is made with, by peft's name."""

    def __init__(
        self,
        request: GenerationRequest,
        prompt: TokenizedPrompt,
        renderer: AnyRenderer,
    ) -> None:
        super().__init__(request, prompt, renderer)
        self.adapter = request.adapter or BASE


def _mask_after(cache: Cache | None, ids: Tensor) -> Tensor:
    """Ones (1, tokens) for all that is cached and one row's ids."""
    cached = 0 if cache is None else cache.get_seq_length()
    return torch.ones(1, cached + ids.shape[1], dtype=torch.long)


def _load_model(
    base: BaseModel, quantization: Quantization, dtype: torch.dtype, device: str
) -> Any:
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {}
    if quantization != "none":
        from engine.quantization.bitsandbytes import keep_layout, quantization_config

        options["quantization_config"] = quantization_config(quantization, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.folder,
            dtype=dtype,
            device_map=device,
            use_safetensors=True,
            **options,
        )
    except Exception as error:
        raise ModelUnavailable(f"cannot load {base.name}: {error}") from error
    if quantization != "none":
        keep_layout(model)
    model.eval()
    return model
