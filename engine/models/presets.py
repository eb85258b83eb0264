"""Well-known checkpoints: their names, their sizes, and the memory that they take.

Counts weights from the numbers in `presets.yaml`, so that the memory is known before anything is
fetched. Knows nothing of files, and reads no weight.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from engine.quantization import Quantization
from engine.yaml_files import shipped_yaml

# Groups of 32 weights share one float16 scale, 4-bit groups a float16 min as well.
BITS: Mapping[Quantization, float] = MappingProxyType(
    {"none": 16, "int8": 8 + 16 / 32, "int4": 4 + 32 / 32}
)


@dataclass(frozen=True, slots=True)
class Preset:
    """A published checkpoint, described by its architecture.

    `family` is the `model_type` of its `config.json`, `context_tokens` the longest context that
    file allows, `licence` the licence's name on the hub.
    """

    name: str
    hub_id: str
    family: str
    licence: str
    layers: int
    hidden_size: int
    mlp_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int  # rows of the embedding, padding included
    context_tokens: int
    tied_head: bool = False  # the output head is the embedding
    gated_mlp: bool = True
    biases: Literal["none", "qkv", "all"] = "none"  # "all": also in the norms
    head_norms: bool = False  # queries and keys are normalized per head

    @property
    def parameters(self) -> int:
        """All weights, a tied head counted once."""
        return self.table_weights + self.linear_weights + self.vector_weights

    @property
    def table_weights(self) -> int:
        """Weights of the embedding and of the output head."""
        return self.vocabulary * self.hidden_size * (1 if self.tied_head else 2)

    @property
    def linear_weights(self) -> int:
        """Weights of the matrices in all layers."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_dim  # q, o; k, v
        mlp = (3 if self.gated_mlp else 2) * self.mlp_size
        return self.layers * self.hidden_size * (attention + mlp)

    @property
    def vector_weights(self) -> int:
        """Weights of the norms and biases."""
        qkv_bias = (self.heads + 2 * self.kv_heads) * self.head_dim
        widened = (2 if self.gated_mlp else 1) * self.mlp_size
        bias = {
            "none": 0,
            "qkv": qkv_bias,
            "all": qkv_bias + self.hidden_size + widened + self.hidden_size,
        }[self.biases]
        norm = self.hidden_size * (2 if self.biases == "all" else 1)
        head_norms = 2 * self.head_dim if self.head_norms else 0
        return self.layers * (2 * norm + head_norms + bias) + norm


def preset_weight_bytes(preset: Preset, quantization: Quantization) -> int:
    """Bytes of the weights with a quantization; `none` is bf16.

    The embedding and the head have 8 bits where the rest has 4; norms and biases stay bf16.
    """
    table: Quantization = "none" if quantization == "none" else "int8"
    bits = (
        preset.linear_weights * BITS[quantization]
        + preset.table_weights * BITS[table]
        + preset.vector_weights * BITS["none"]
    )
    return int(bits) // 8


def kv_bytes_per_token(preset: Preset, value_bytes: int = 2) -> int:
    """Bytes of the keys and values of one token in the cache, by default in bf16."""
    return 2 * preset.layers * preset.kv_heads * preset.head_dim * value_bytes


@functools.cache
def presets() -> Mapping[str, Preset]:
    """Every preset by its name, in the file's order."""
    entries = shipped_yaml("engine.models", "presets.yaml")
    return MappingProxyType({name: Preset(name, **entry) for name, entry in entries.items()})


def preset(name: str) -> Preset | None:
    """The preset called `name`, or the one with that hub id; None when there is none."""
    by_hub_id = {known.hub_id: known for known in presets().values()}
    return presets().get(name) or by_hub_id.get(name)
