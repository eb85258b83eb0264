"""P-tuning v2 checkpoints of ChatGLM's published code, made into prefix-tuning adapters.

The published training code (Liu et al. 2021, "P-Tuning v2", sec. 3) saves tensors called
`prefix_encoder`: keys and values of every layer for each virtual token, or, with
`prefix_projection`, the inputs and the weights of a small network that makes them. Both end in the
tensor that peft saves for a prefix. Knows these names; which adapters are accepted is
`soft_prompt.py`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.adapters.files import CONFIG, WEIGHTS
from engine.adapters.soft_prompt import KEY, PREFIX, PromptSizes, prompt_sizes
from engine.config_file import read_config
from engine.errors import InvalidBundle
from engine.models.checkpoint import open_checkpoint

PREFIX_ENCODER = "transformer.prefix_encoder."
PREFIX_TABLE = "embedding.weight"
PREFIX_NETWORK = ("trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias")


def is_prefix_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a P-tuning v2 checkpoint, by the prefix in its config.json."""
    return not (folder / CONFIG).exists() and bool(read_config(folder).get("pre_seq_len"))


def convert_prefix_checkpoint(source: Path, base: Path, target: Path) -> None:
    """Write a P-tuning v2 checkpoint for the base model in a folder as a PEFT adapter.

    `target` is a folder that exists. The checkpoint may hold the prefix alone or the whole model.
    Raises `InvalidBundle` for one that has no prefix or not one for this base, `ModelUnavailable`
    for files that cannot be read, pickled ones among them.
    """
    import torch
    from safetensors.torch import save_file

    checkpoint = open_checkpoint(source)
    tensors = {
        name.removeprefix(PREFIX_ENCODER): checkpoint.tensor(name).float()
        for name in sorted(checkpoint.names)
        if name.startswith(PREFIX_ENCODER)
    }
    names = (
        {PREFIX_TABLE, *PREFIX_NETWORK}
        if PREFIX_TABLE in tensors and len(tensors) > 1
        else {PREFIX_TABLE}
    )
    if tensors.keys() != names:
        raise InvalidBundle([f"its tensors {PREFIX_ENCODER}* are not those of a prefix encoder"])
    prefix = tensors[PREFIX_TABLE]
    if len(tensors) > 1:
        first, first_bias, second, second_bias = (tensors[name] for name in PREFIX_NETWORK)
        inner = torch.tanh(torch.nn.functional.linear(prefix, first, first_bias))
        prefix = torch.nn.functional.linear(inner, second, second_bias)
    sizes = prompt_sizes(base)
    if tuple(prefix.shape) != sizes.shape(PREFIX, len(prefix)):
        raise InvalidBundle([f"its prefix has shape {tuple(prefix.shape)}: made for another base"])
    save_file({KEY: prefix.contiguous()}, target / WEIGHTS, metadata={"format": "pt"})
    (target / CONFIG).write_text(json.dumps(_config(len(prefix), sizes), indent=2, sort_keys=True))


def _config(tokens: int, sizes: PromptSizes) -> Mapping[str, Any]:
    """peft's configuration of a prefix."""
    return {
        "peft_type": PREFIX,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "num_virtual_tokens": tokens,
        "token_dim": sizes.token_dim(PREFIX),
        "num_layers": sizes.layers,
        "num_attention_heads": sizes.kv_heads,
        "num_transformer_submodules": 1,
        "encoder_hidden_size": None,
        "prefix_projection": False,
    }
