"""The reference engine: plain transformers and peft, for any decoder-only architecture.

It is the oracle of the parity tests: simple before fast. Knows how scheduled chunks become forward
passes of a transformers model; the engine's thread, its queue and its streams are
`engine.serving`'s.
"""

from __future__ import annotations

import inspect
from collections import abc
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache
from transformers.utils import logging as transformers_logging

from engine.adapters import soft_prompt
from engine.adapters.files import peft_type
from engine.adapters.kinds import kind_in
from engine.adapters.mixed_batch import adapters_of_rows
from engine.errors import InvalidBundle, ModelUnavailable
from engine.hardware import detect
from engine.models.catalogue import BaseModel
from engine.models.context import context_tokens
from engine.prompts.interface import ChatRenderer
from engine.prompts.load import load_renderer
from engine.quantization import Quantization
from engine.serving.engine import ServingEngine
from engine.serving.row_batch import RowBatch, new_cache
from engine.serving.runner import EngineThread, StepOutput
from engine.serving.sequence import ScheduledChunk, Sequence

NO_ADAPTER = "__base__"  # peft's name for "no adapter" in a mixed batch


@dataclass(frozen=True, slots=True, eq=False)
class PeftAdapter:
    """Implements `Adapter` with layers that peft has put into the model, or a filled cache."""

    digest: str
    runner: TransformersRunner
    prefix: Cache | None = None  # keys and values of its virtual tokens

    @property
    def virtual_tokens(self) -> int:
        """See `Adapter`."""
        return 0 if self.prefix is None else int(self.prefix.get_seq_length())

    def close(self) -> None:
        """See `Adapter`."""
        if self.prefix is None:
            self.runner.remove_layers(self.digest)


class TransformersRunner:
    """Implements `ModelRunner` and `CacheManager` with transformers' model and caches.

    A prompt is computed alone; then its row joins the batch of those that decode, each with the
    adapter it began with (peft's mixed batches).
    """

    whole_prompts = True
    hang_seconds = 120.0  # peft changes the model between two steps, and any size of it may run

    def __init__(
        self, base: BaseModel, *, quantization: Quantization, dtype: torch.dtype | None
    ) -> None:
        hardware = detect()
        self._base = base
        self._quantization = quantization
        self._device = hardware.device
        self._dtype = dtype or hardware.dtype
        self._model: Any = _load_model(base, quantization, self._dtype, self._device)
        self._accepted = frozenset(inspect.signature(self._model.forward).parameters)
        self._config = self._model.config.get_text_config()
        self.vocabulary: int = self._config.vocab_size
        self._layers: set[str] = set()  # adapters whose layers are in the model
        self._computed: dict[Sequence, Cache] = {}  # prompts that have not joined the batch yet
        self._rows: list[Sequence] = []  # the sequence of each row of the batch
        self._batch = RowBatch()

    @property
    def cache_manager(self) -> TransformersRunner:
        """See `ModelRunner`."""
        return self

    @property
    def context_tokens(self) -> int:
        """See `ModelRunner`."""
        return context_tokens(self._config)

    # The cache of each sequence

    def allocate(self, sequence: Sequence) -> int:
        """See `CacheManager`; there is always room, and only virtual tokens are cached."""
        return sequence.virtual_tokens

    def publish(self, sequence: Sequence) -> None:
        """See `CacheManager`; nothing is shared."""

    def could_share(self, sequence: Sequence, other: Sequence) -> bool:
        """See `CacheManager`."""
        return False

    def free(self, sequence: Sequence) -> None:
        """See `CacheManager`; the next step drops its row, or nothing is left now."""
        self._computed.pop(sequence, None)
        if all(row.task.ended for row in self._rows):
            self._rows, self._batch = [], RowBatch()

    # Steps

    def prefix_tokens(self, prompt_ids: abc.Sequence[int]) -> int:
        """See `ModelRunner`; attention is causal."""
        return 0

    def run(self, chunks: list[ScheduledChunk]) -> StepOutput:
        """See `ModelRunner`: one pass for all rows that decode, one for each prompt."""
        begun = {*self._rows, *self._computed}
        decoding = [chunk.sequence for chunk in chunks if chunk.sequence in begun]
        rows = self._decode(decoding) if decoding else {}
        logits: list[Tensor] = []
        hidden: list[Tensor] = []
        for chunk in chunks:
            if chunk.sequence in rows:
                logits.append(rows[chunk.sequence])
            else:
                (hidden if chunk.takes_hidden_states else logits).append(self._prefill(chunk))
        return StepOutput(
            torch.cat(logits) if logits else torch.empty(0, self.vocabulary),
            torch.cat(hidden) if hidden else torch.empty(0, 0),
        )

    def _prefill(self, chunk: ScheduledChunk) -> Tensor:
        """The output of a prompt for its wanted tokens, which are its last: logits (wanted,
        vocabulary), or hidden states (wanted, hidden size)."""
        sequence = chunk.sequence
        cache = self._new_cache(sequence)
        ids = torch.tensor([sequence.ids(chunk.begin, chunk.end)], device=self._device)
        mask = torch.ones(1, chunk.end, dtype=torch.long)
        kept = len(chunk.wanted)
        if chunk.takes_hidden_states:
            output = self._forward(ids, mask, None, [sequence], cache, output_hidden_states=True)
            rows = output.hidden_states[-1]  # the last one is after the final norm
        else:
            rows = self._forward(ids, mask, None, [sequence], cache, logits_to_keep=kept).logits
        self._computed[sequence] = cache
        wanted: Tensor = rows[0, -kept:].cpu()
        return wanted

    def _decode(self, sequences: list[Sequence]) -> dict[Sequence, Tensor]:
        """Logits (1, vocabulary) after the last token of each sequence."""
        kept = [index for index, row in enumerate(self._rows) if row in sequences]
        if len(kept) < len(self._rows):
            self._batch.keep(kept)
            self._rows = [self._rows[index] for index in kept]
        for sequence in sequences:
            if sequence in self._computed:
                self._batch.join(self._computed.pop(sequence))
                self._rows.append(sequence)
        last = torch.tensor([[row.task.ids[-1]] for row in self._rows], device=self._device)
        mask, positions = self._batch.grow()
        logits = self._forward(last, mask, positions, self._rows, self._batch.cache).logits
        return dict(zip(self._rows, logits[:, -1:].cpu(), strict=True))

    def _new_cache(self, sequence: Sequence) -> Cache:
        """The cache of one row, empty or with the virtual tokens of its adapter."""
        cache = new_cache()
        prefix = sequence.adapter.prefix if isinstance(sequence.adapter, PeftAdapter) else None
        for index, layer in enumerate(prefix.layers if prefix is not None else ()):
            cache.update(layer.keys, layer.values, index)
        return cache

    def _forward(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor | None,
        rows: list[Sequence],
        cache: Cache,
        logits_to_keep: int = 1,
        output_hidden_states: bool = False,
    ) -> Any:
        """The output of transformers' model; `ids` may be input embeddings.

        Not every model heeds `logits_to_keep`.
        """
        offered: dict[str, Any] = {
            "attention_mask": mask.to(self._device),
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": logits_to_keep,
        }
        if positions is not None:
            offered["position_ids"] = positions.to(self._device)
        arguments = {name: value for name, value in offered.items() if name in self._accepted}
        arguments["inputs_embeds" if ids.is_floating_point() else "input_ids"] = ids
        if output_hidden_states:
            arguments["output_hidden_states"] = True
        digests = [row.adapter_digest or NO_ADAPTER for row in rows] or [NO_ADAPTER]
        names = [digest if digest in self._layers else NO_ADAPTER for digest in digests]
        with adapters_of_rows(self._model, names) if self._layers else nullcontext():
            return self._model(**arguments)

    # Adapters

    def open_adapter(self, digest: str, folder: Path, thread: EngineThread) -> PeftAdapter:
        """See `ModelRunner`; peft changes the model, so it does that on the engine's thread."""
        import peft  # noqa: F401 - takes seconds; here it stalls no stream, nor a start without it

        open_kind = self._add_layers
        if kind_in(folder) is soft_prompt:
            open_kind = self._fill_prefix
        return thread.call(partial(open_kind, digest, folder)).result()

    def _add_layers(self, digest: str, folder: Path) -> PeftAdapter:
        from peft import PeftModel

        try:
            if self._layers:
                self._model.load_adapter(folder, adapter_name=digest)
            else:
                self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=digest)
        except Exception as error:
            self._remove_partly_added(digest)
            raise InvalidBundle([f"peft cannot load it: {error}"]) from error
        self._model.eval()
        self._layers.add(digest)
        return PeftAdapter(digest, self)

    def _remove_partly_added(self, digest: str) -> None:
        """Undo what a failed load has changed in the model."""
        if not self._layers:
            self._model = _load_model(self._base, self._quantization, self._dtype, self._device)
        elif digest in self._model.peft_config:
            self._model.delete_adapter(digest)

    def remove_layers(self, digest: str) -> None:
        """Take an adapter's layers out of the model; with the last, the base model is restored."""
        self._layers.discard(digest)
        if self._layers:
            self._model.delete_adapter(digest)
        else:
            self._model = self._model.unload()

    def _fill_prefix(self, digest: str, folder: Path) -> PeftAdapter:
        """The keys and values of virtual tokens, from what peft computes of an adapter's files."""
        from peft import PeftModel

        reason = soft_prompt.unsupported_reason(self._base.folder, peft_type(folder))
        if reason is not None:
            raise InvalidBundle([reason])
        base = self._model.get_base_model() if self._layers else self._model
        try:
            prompt = PeftModel.from_pretrained(base, folder).get_prompt(batch_size=1)
        except Exception as error:
            raise InvalidBundle([f"peft cannot load it: {error}"]) from error
        if isinstance(prompt, Cache):
            return PeftAdapter(digest, self, prompt)
        cache = new_cache()
        embeddings = prompt.to(self._dtype)
        self._forward(
            embeddings, torch.ones(embeddings.shape[:2], dtype=torch.long), None, [], cache
        )
        return PeftAdapter(digest, self, cache)


class ReferenceEngine(ServingEngine[TransformersRunner]):
    """Continuous batching over a transformers model."""

    def __init__(
        self,
        base: BaseModel,
        *,
        renderer: ChatRenderer | None = None,
        quantization: Quantization = "none",
        dtype: torch.dtype | None = None,
        max_rows: int = 32,
        max_queue: int = 256,
    ) -> None:
        """`renderer`: the checkpoint's, if it is loaded already. Raises `ModelUnavailable`."""
        renderer = renderer or load_renderer(base.folder)
        runner = TransformersRunner(base, quantization=quantization, dtype=dtype)
        super().__init__(base, renderer, runner, max_rows=max_rows, max_queue=max_queue)


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
            base.folder, dtype=dtype, device_map=device, use_safetensors=True, **options
        )
    except Exception as error:
        raise ModelUnavailable(f"cannot load {base.name}: {error}") from error
    if quantization != "none":
        keep_layout(model)
    model.eval()
    return model
