"""Running a decoder without an engine: sequences of token ids in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from engine.adapters.lora_matrices import LoraMatrices, StepAdapters
from engine.kernels.interface import PAGE_TOKENS, AttentionMetadata
from engine.kernels.native import NativeKernels
from engine.models.architecture import Architecture
from engine.models.checkpoint import open_checkpoint
from engine.models.decoder import Decoder
from engine.models.families import architecture_of
from engine.models.kernel_selection import KernelChoice
from engine.models.loading import WeightFormat, load_decoder
from engine.quantization import Quantization
from engine.serving.kv_cache import BlockTable, PagedCache

SIZES = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 136,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@dataclass
class Text:
    """A sequence, and how much of it is in the cache."""

    prompt: list[int]
    block_table: BlockTable
    cached: int = 0
    adapter: LoraMatrices | None = None


class Runner:
    """A decoder and its cache."""

    def __init__(self, architecture: Architecture, decoder: Decoder, pages: int = 40) -> None:
        self.architecture, self.decoder = architecture, decoder
        config = architecture.config
        self._cache = PagedCache(
            config.layer_count,
            config.heads,
            page_count=pages,
            dtype=torch.float32,
            device="cpu",
            share=False,
        )
        for layer in self._cache.layers:  # what no token has filled must not be looked at
            layer.keys.fill_(torch.nan)
            layer.values.fill_(torch.nan)

    @classmethod
    def of(
        cls,
        folder: Path,
        choice: KernelChoice,
        quantization: Quantization = "none",
        pages: int = 40,
    ) -> Runner:
        """The checkpoint in `folder`, in float32 unless it is quantized."""
        architecture = architecture_of(folder)
        weight_format = WeightFormat(quantization, "cpu", torch.float32, choice)
        return cls(
            architecture, load_decoder(open_checkpoint(folder), architecture, weight_format), pages
        )

    def begin(self, prompt: Sequence[int], adapter: LoraMatrices | None = None) -> Text:
        """A sequence with room for 32 tokens after the prompt."""
        block_table = self._cache.allocate(None, prompt, len(prompt) + PAGE_TOKENS, reusable=0)
        assert block_table is not None
        return Text(list(prompt), block_table, adapter=adapter)

    @torch.inference_mode()
    def step(
        self, *chunks: tuple[Text, Sequence[int]], kernels: NativeKernels | None = None
    ) -> list[Tensor]:
        """Logits (tokens, vocabulary) of each sequence's next tokens, computed in one batch.

        `kernels`: what half-precision adapters are held for.
        """
        ids: list[int] = []
        places: list[list[int]] = []
        for text, tokens in chunks:
            prefix = self.architecture.positions.prefix(text.prompt)
            places.append([len(ids), len(tokens), text.cached, prefix])
            ids += tokens
        width = max(len(text.block_table.pages) for text, _ in chunks)
        pages = [
            text.block_table.pages + [0] * (width - len(text.block_table.pages))
            for text, _ in chunks
        ]
        spans = [(text, text.cached, text.cached + len(tokens)) for text, tokens in chunks]
        cos, sin = self.decoder.angles(
            torch.cat(
                [self.architecture.positions(t.prompt, begin, end) for t, begin, end in spans]
            )
        )
        slots = torch.cat([text.block_table.slots(begin, end) for text, begin, end in spans])
        step = AttentionMetadata(
            torch.tensor(places), torch.tensor(pages, dtype=torch.int32), slots, cos, sin
        )
        rows = [text.adapter for text, tokens in chunks for _ in tokens]
        adapters = StepAdapters(rows, kernels) if any(rows) else None
        logits = self.decoder(
            torch.tensor(ids), step, self._cache.layers, torch.arange(len(ids)), adapters
        )
        for text, tokens in chunks:
            text.cached += len(tokens)
        return list(torch.split(logits, [len(tokens) for _, tokens in chunks]))

    def logits(self, ids: Sequence[int], adapter: LoraMatrices | None = None) -> Tensor:
        """Logits of a whole text, computed at once."""
        return self.step((self.begin(ids, adapter), ids))[0]


def write_random(folder: Path, config: Any, seed: int = 0) -> PreTrainedModel:
    """transformers' model of a configuration with all parameters random, saved in `folder`."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomize(model, seed)
    model.save_pretrained(folder)
    return model


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Matrices around 0, norms around 1, biases around 0, all far enough to be missed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.15 * noise)
            else:
                parameter.copy_(0.3 * noise + (0.0 if name.endswith("bias") else 1.0))


def random_ids(count: int, seed: int = 0, vocabulary: int = SIZES["vocab_size"]) -> list[int]:
    """Token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (count,), generator=generator).tolist()
