"""Adapters that other software trained, in the form that a bundle has.

peft, and what is built on it (LLaMA-Factory, Unsloth, Alpaca-LoRA), writes a folder with a
configuration and a file of tensors. What an engine cannot serve is refused, each thing by its
name; the rest is the configuration that a bundle holds, and the tensors as they are. Nothing is
unpickled, and nothing is written.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.adapters import lora, soft_prompt
from engine.adapters.base_names import other_base
from engine.adapters.files import CONFIG, HARMLESS, WEIGHTS, read_adapter_config
from engine.adapters.foreign_lora import TARGETS, resolve_modules
from engine.adapters.kinds import kind_of
from engine.errors import InvalidBundle, InvalidInput
from engine.models.catalogue import BaseModel
from engine.time_slices import do_not_yield

# Fields that change nothing which is computed from the saved matrices; `auto_mapping` is the class
# of the model that was trained
UNUSED = frozenset({"lora_dropout", "inference_mode", "auto_mapping"})
# Initialisations of peft's LoraConfig that leave the base model's weights as they are; the others
# take from those weights what they put into the matrices
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
MERGE = (
    "merge it into its base model (peft's merge_and_unload) and serve the result as a model of its"
    " own"
)
PROBLEMS_SHOWN = 3  # problems of the tensors; a wrong file has thousands


@dataclass(frozen=True, slots=True)
class ForeignAdapter:
    """A checked adapter: its configuration as a bundle has it, and the file of its tensors."""

    config: Mapping[str, Any]
    weights: Path
    claimed_base: str | None  # the base model that it names


def read_foreign(folder: Path, base: BaseModel, *, trust_base: bool = False) -> ForeignAdapter:
    """Read and check the PEFT folder of an adapter for a base model.

    `trust_base` takes an adapter that names another base model. Raises `InvalidInput` where there
    is no adapter, `InvalidBundle` with the reasons where it cannot be served on this base.
    """
    config = _read_config(folder)
    weights = _weights_of(folder)
    claimed = config.get("base_model_name_or_path") or None
    problems = [] if trust_base else list(other_base(claimed, base))
    if problems := problems or list(_field_problems(config)):
        raise InvalidBundle(problems)
    plain = _plain_config(config, weights, base)
    kind = kind_of(plain["peft_type"]) or lora
    found = list(kind.problems(folder, plain, base, do_not_yield))
    if found:
        more = [f"{len(found) - PROBLEMS_SHOWN} more"] if len(found) > PROBLEMS_SHOWN else []
        raise InvalidBundle([*found[:PROBLEMS_SHOWN], *more])
    return ForeignAdapter(plain, weights, None if claimed is None else str(claimed))


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise InvalidInput(
            f"{folder} holds no {CONFIG}: give the folder that peft's save_pretrained wrote"
        )
    return read_adapter_config(folder)


def _weights_of(folder: Path) -> Path:
    """The file of the tensors; a pickled one is refused with the command that converts it."""
    weights = folder / WEIGHTS
    if weights.is_file():
        return weights
    pickled = sorted(path.name for path in folder.glob("adapter_model.*") if path.is_file())
    if not pickled:
        raise InvalidInput(f"{folder} holds no {WEIGHTS}")
    convert = (
        "import torch; from safetensors.torch import save_file; "
        f"t = torch.load({pickled[0]!r}, weights_only=True, map_location='cpu'); "
        f"save_file({{k: v.clone().contiguous() for k, v in t.items()}}, {WEIGHTS!r})"
    )
    raise InvalidBundle(
        [
            f"{pickled[0]} is pickled, which is never read here; convert it with: "
            f"cd {shlex.quote(str(folder))} && python -c {shlex.quote(convert)}"
        ]
    )


def _field_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Fields by which an adapter is more than matrices beside the base model's layers.

    The kinds that are not LoRA name every field that they do not know themselves.
    """
    if kind_of(config.get("peft_type")) not in (lora, None):
        return
    if modules := config.get("modules_to_save"):
        yield f"modules_to_save: it holds whole trained layers ({_names(modules)}); {MERGE}"
    if config.get("bias") not in (None, "none"):
        yield f"bias is {config['bias']!r}: it holds trained biases of the base model; {MERGE}"
    if config.get("use_dora"):
        yield f"use_dora: DoRA cannot be computed for each row of a batch; {MERGE}"
    if config.get("init_lora_weights") not in PLAIN_STARTS:
        yield (
            f"init_lora_weights is {config['init_lora_weights']!r}, which changes the base model's"
            " weights too; save it with peft's path_initial_model_for_weight_conversion"
        )
    told = {"modules_to_save", "bias", "use_dora", "init_lora_weights"}
    known = lora.CHECKED | HARMLESS | UNUSED | told | {*TARGETS}
    for field, value in config.items():
        if field not in known and value and value != lora.NEUTRAL.get(field):
            yield f"{field} is not supported"


def _plain_config(config: Mapping[str, Any], weights: Path, base: BaseModel) -> dict[str, Any]:
    """The configuration as a bundle has it; raises `InvalidBundle` where it does not fit."""
    plain = {
        "peft_type": config.get("peft_type"),
        # peft leaves it null where a model was wrapped without naming a task
        "task_type": config.get("task_type") or "CAUSAL_LM",
        "base_model_name_or_path": Path(base.name).name,
        "inference_mode": True,
    }
    if kind_of(plain["peft_type"]) is soft_prompt:
        kept = soft_prompt.CHECKED | soft_prompt.TRAINING_ONLY - {"tokenizer_name_or_path"}
        return {**{key: config[key] for key in config if key in kept}, **plain}
    if plain["peft_type"] not in lora.PEFT_TYPES:
        return {**config, **plain}  # its kind is refused by name
    return plain | {
        "bias": "none",
        "lora_dropout": 0.0,  # of its training; ours has its own
        "fan_in_fan_out": bool(config.get("fan_in_fan_out")),
        "use_rslora": bool(config.get("use_rslora")),
        **resolve_modules(config, weights, base),
    }


def _names(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
