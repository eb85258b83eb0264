"""Soft prompts (prefix tuning, prompt tuning, P-tuning): which are accepted, and their opening.

peft saves what its encoder gives and not the encoder: one tensor with a row for each virtual
token. Prefix tuning (Li & Liang 2021, 4.2) keeps keys and values of every layer in a row; prompt
tuning (Lester et al. 2021, 2) and P-tuning (Liu et al. 2021, 3) keep an input embedding. Knows
configurations and shapes; the tensors are `soft_prompt_tensors.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.files import HARMLESS, WEIGHTS, peft_type, tensor_problems
from engine.errors import InvalidBundle, Overloaded
from engine.models.catalogue import BaseModel
from engine.time_slices import YieldToEngine

if TYPE_CHECKING:
    from engine.adapters.interface import DecoderHost
    from engine.adapters.soft_prompt_tensors import SoftPrompt
    from engine.serving.block_manager import BlockManager

PREFIX = "PREFIX_TUNING"
PEFT_TYPES = frozenset({PREFIX, "PROMPT_TUNING", "P_TUNING"})
KEY = "prompt_embeddings"
# Each row of a batch attends to all of them. The papers stop at 200 (Li & Liang 2021, 7.2).
MAX_VIRTUAL_TOKENS = 512
# peft begins a prefix with entries of mean square 1; cached keys are a few tens at most
MAX_ROOT_MEAN_SQUARE = 100.0
CHECKED = {
    "peft_type",
    "task_type",
    "num_virtual_tokens",
    "token_dim",
    "num_layers",
    "num_attention_heads",
    "num_transformer_submodules",
}
# How the saved numbers were trained, which does not change what they compute
TRAINING_ONLY = {
    "encoder_hidden_size",
    "encoder_reparameterization_type",
    "encoder_num_layers",
    "encoder_dropout",
    "prefix_projection",
    "init_weights",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "tokenizer_name_or_path",
}


@dataclass(frozen=True, slots=True)
class PromptSizes:
    """The sizes of a base model that decide the shape of its soft prompts."""

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int

    def token_dim(self, kind: str) -> int:
        """peft's `token_dim`: channels of all key heads for a prefix, else of an embedding."""
        return self.kv_heads * self.head_dim if kind == PREFIX else self.hidden

    def shape(self, kind: str, tokens: int) -> tuple[int, int]:
        """Shape of the saved tensor."""
        width = self.token_dim(kind)
        return (tokens, 2 * self.layers * width if kind == PREFIX else width)


def prompt_sizes(folder: Path) -> PromptSizes:
    """Read the sizes of the checkpoint in `folder` from its configuration."""
    from transformers import AutoConfig

    from engine.models.families import architecture_of, is_covered

    if is_covered(folder):
        ours = architecture_of(folder).config
        return PromptSizes(ours.layer_count, ours.heads.kv, ours.heads.dim, ours.hidden_size)
    config = AutoConfig.from_pretrained(folder).get_text_config()
    heads = config.num_attention_heads
    return PromptSizes(
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        hidden=config.hidden_size,
    )


def unsupported_reason(folder: Path, kind: str) -> str | None:
    """The reason why a checkpoint cannot take virtual tokens of a kind; None if it can."""
    from engine.models.families import architecture_of, is_covered

    if kind == PREFIX or not is_covered(folder) or not architecture_of(folder).config.prefix_lm:
        return None
    return (
        "this base model reads its prompt both ways, so that embeddings before a prompt would have "
        "to be computed anew with each; use a prefix of keys and values (prefix tuning, P-tuning "
        "v2), or another base model"
    )


def problems(
    folder: Path, config: Mapping[str, Any], base: BaseModel, yield_to_engine: YieldToEngine
) -> Iterator[str]:
    """See `AdapterKind`: problems of the configuration, else of the one tensor."""
    from safetensors import SafetensorError, safe_open

    reason = unsupported_reason(base.folder, config["peft_type"])
    if reason is not None:
        yield f"peft_type is {config['peft_type']!r}: {reason}"
        return
    sizes = prompt_sizes(base.folder)
    found = list(config_problems(config, sizes))
    yield from found
    yield_to_engine()
    if found:
        return
    shape = sizes.shape(config["peft_type"], config["num_virtual_tokens"])
    max_norm = MAX_ROOT_MEAN_SQUARE * (shape[0] * shape[1]) ** 0.5
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            keys = set(file.keys())
            for odd in sorted(keys - {KEY}):
                yield f"{odd} is not a soft prompt's tensor"
            if KEY not in keys:
                yield f"{WEIGHTS} holds no {KEY}"
                return
            tensor = file.get_tensor(KEY)
            yield from tensor_problems(KEY, tensor, shape, max_norm)
    except (SafetensorError, OSError, ValueError) as error:
        yield f"{WEIGHTS} cannot be read: {error}"


@dataclass(frozen=True, slots=True)
class SoftPromptAdapter:
    """Implements `DecoderAdapter` with pinned pages that each of its sequences begins with."""

    digest: str
    virtual_tokens: int
    virtual_positions: int
    cache_manager: BlockManager
    matrices: None = None

    def close(self) -> None:
        """See `Adapter`."""
        self.cache_manager.unpin(self.digest)


def open_adapter(digest: str, folder: Path, host: DecoderHost) -> SoftPromptAdapter:
    """See `AdapterKind`: its pages are filled once, a page between two steps."""
    from engine.kernels.interface import PAGE_TOKENS

    prompt = _read(folder, host)
    call, tokens = host.thread.call, prompt.tokens
    prefix = call(partial(host.cache_manager.pin, digest, tokens)).result()
    if prefix is None:
        raise Overloaded(f"the cache has no room for the adapter's {tokens} virtual tokens")
    try:
        for begin in range(0, tokens, PAGE_TOKENS):
            end = min(begin + PAGE_TOKENS, tokens)
            call(partial(prompt.fill, host, prefix.block_table, begin, end)).result()
        call(partial(host.cache.publish_prefix, prefix)).result()
    except Exception:
        call(partial(host.cache_manager.unpin, digest))
        raise
    numbered = prompt.embedded or host.decoder.config.numbers_key_prefix
    return SoftPromptAdapter(digest, tokens, tokens if numbered else 0, host.cache_manager)


def _read(folder: Path, host: DecoderHost) -> SoftPrompt:
    """The tensors of a *verified* PEFT folder; raises `InvalidBundle` if they cannot be used."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from engine.adapters.soft_prompt_tensors import PromptEmbeddings, key_value_prefix

    kind = peft_type(folder)
    reason = unsupported_reason(host.base, kind)
    if reason is not None:
        raise InvalidBundle([f"peft_type is {kind!r}: {reason}"])
    try:
        saved = load_file(folder / WEIGHTS)[KEY].float()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidBundle([f"it cannot be read: {error}"]) from error
    if tuple(saved.shape) != prompt_sizes(host.base).shape(kind, len(saved)):
        raise InvalidBundle([f"{KEY} has shape {tuple(saved.shape)}"])
    saved = saved.to(host.device)
    if kind == PREFIX:
        return key_value_prefix(saved, host.decoder.config.heads, host.layout)
    return PromptEmbeddings(saved)


def config_problems(config: Mapping[str, Any], sizes: PromptSizes) -> Iterator[str]:
    """The reasons to refuse an `adapter_config.json` of one of `PEFT_TYPES`."""
    kind: str = config["peft_type"]
    tokens: Any = config.get("num_virtual_tokens")
    if type(tokens) is not int or not 1 <= tokens <= MAX_VIRTUAL_TOKENS:
        yield f"num_virtual_tokens is {tokens!r}; it must lie in 1..{MAX_VIRTUAL_TOKENS}"
    wanted: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "token_dim": sizes.token_dim(kind),
        "num_layers": sizes.layers,
        "num_transformer_submodules": 1,
    }
    if kind == PREFIX:
        wanted["num_attention_heads"] = sizes.kv_heads
    for field, value in wanted.items():
        if config.get(field) != value:
            yield f"{field} is {config.get(field)!r}, not {value!r}"
    for field, value in config.items():
        if field not in CHECKED | TRAINING_ONLY | HARMLESS and value:
            yield f"{field} is not supported"
