"""The files of a PEFT adapter, and the checks that hold for every kind of adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidBundle

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32")
# Fields of any adapter's configuration that do not change what it computes. peft sets
# fan_in_fan_out by the kind of layer: to true for GPT-2's alone
HARMLESS = frozenset(
    {"base_model_name_or_path", "inference_mode", "peft_version", "revision", "fan_in_fan_out"}
)


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """An adapter's configuration; raises `InvalidBundle` unless it is a JSON object."""
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidBundle([f"{CONFIG} cannot be read: {error}"]) from error
    if not isinstance(config, dict):
        raise InvalidBundle([f"{CONFIG} cannot be read: it is not a JSON object"])
    return config


def write_adapter_config(folder: Path, config: Mapping[str, Any], base_name: str) -> None:
    """Write an adapter's configuration, always in the same bytes.

    The base model is called by the last part of its name: where it lies on this machine is nobody
    else's business, and manifests identify it by its digest.
    """
    named = {**config, "base_model_name_or_path": Path(base_name).name}
    (folder / CONFIG).write_text(json.dumps(named, indent=2, sort_keys=True))


def peft_type(folder: Path) -> str:
    """The kind that an adapter's configuration names; raises `InvalidBundle` if it names none."""
    kind = read_adapter_config(folder).get("peft_type")
    if not isinstance(kind, str):
        raise InvalidBundle([f"{CONFIG} names no peft_type"])
    return kind


def tensor_problems(
    key: str, tensor: Tensor, shape: tuple[int, int], max_norm: float
) -> Iterator[str]:
    """Shape, number format and size of a tensor that are refused."""
    if tuple(tensor.shape) != shape:
        yield f"{key} has shape {tuple(tensor.shape)}, not {shape}"
    elif str(tensor.dtype) not in FLOATS:
        yield f"{key} holds {tensor.dtype}, not one of {', '.join(FLOATS)}"
    elif not (norm := float(tensor.float().norm())) <= max_norm:  # so is NaN
        if tensor.isfinite().all():
            yield f"{key} has norm {norm:.3g}, over the limit of {max_norm:g}"
        else:
            yield f"{key} holds NaN or infinite values"


def is_number(value: Any, *kinds: type) -> bool:
    """Return whether a configured value is a number of these types; true and false are none."""
    return isinstance(value, kinds) and not isinstance(value, bool)
