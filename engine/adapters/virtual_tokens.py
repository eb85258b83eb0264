"""Soft prompts on disk: prefix tuning, prompt tuning and P-tuning, as peft saves them.

peft saves what its encoder gives and not the encoder: one tensor with a row for each virtual
token. Prefix tuning (Li & Liang 2021, 4.2) keeps keys and values of every layer in a row; prompt
tuning (Lester et al. 2021, 2) and P-tuning (Liu et al. 2021, 3) keep an input embedding. Knows
configurations and shapes; opening the files is `bundle.py`'s, computing is `soft_prompt.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "PREFIX_TUNING"
KINDS = (PREFIX, "PROMPT_TUNING", "P_TUNING")
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
# How the saved numbers came to be; none of it changes what they compute
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
    """What a base model says about the shape of its soft prompts."""

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int

    def token_dim(self, kind: str) -> int:
        """peft's `token_dim`: channels of all key heads for a prefix, else of an embedding."""
        return self.kv_heads * self.head_dim if kind == PREFIX else self.hidden

    def shape(self, kind: str, tokens: int) -> tuple[int, int]:
        """Of the saved tensor."""
        width = self.token_dim(kind)
        return (tokens, 2 * self.layers * width if kind == PREFIX else width)


def prompt_sizes(folder: Path) -> PromptSizes:
    """The sizes of the checkpoint in `folder`; no weight is read."""
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


def why_not_served_by(folder: Path) -> str | None:
    """Why the checkpoint in `folder` cannot take virtual tokens, or None if it can."""
    from engine.models.families import architecture_of, is_covered

    if not is_covered(folder) or architecture_of(folder).config.position_channels == 1:
        return None
    return (
        "this base model counts positions in two channels, from its mask token on, so that "
        "virtual tokens before the prompt have no place in them; train a LoRA adapter instead"
    )


def config_problems(
    config: Mapping[str, Any], sizes: PromptSizes, harmless: set[str]
) -> Iterator[str]:
    """Why an `adapter_config.json` of one of `KINDS` is refused. `harmless`: of any adapter."""
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
        if field not in CHECKED | TRAINING_ONLY | harmless and value:
            yield f"{field} is not supported"
