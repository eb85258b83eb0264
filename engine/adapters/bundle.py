"""The bundle: a PEFT adapter with a manifest, content-addressed. This module owns the format.

A bundle is refused before any weight reaches an engine. Every reason is collected, so that one
look tells all. Nothing is ever unpickled: weights are safetensors or they are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters import virtual_tokens
from engine.errors import InvalidBundle
from engine.models.catalogue import BaseModel, linear_shapes
from engine.storage import digest_file, folder_of, publish, read_manifest, verify
from engine.time_slices import YieldToEngine, do_not_yield

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "burnish-bundle/1"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 256
# A trained rank-16 adapter's matrices have Frobenius norms of 0.1 to 20; far above lies a fault.
MAX_NORM = 1_000.0
MAX_SCALING = 64
CHECKED = {
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "target_modules",
    "lora_dropout",
    "use_rslora",
}
HARMLESS = {"base_model_name_or_path", "inference_mode", "peft_version", "revision"}
HARMLESS |= {"fan_in_fan_out"}  # peft sets it by the kind of layer: true for GPT-2's alone
# Fields whose value for "nothing" is not false, null or empty
NEUTRAL = {
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
}
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32")
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle."""

    digest: str
    folder: Path
    manifest: Mapping[str, Any]


def publish_bundle(root: Path, write: Callable[[Path], None], manifest: Mapping[str, Any]) -> str:
    """Publish the adapter files `write` puts into a folder; returns the bundle's digest."""

    def fill(folder: Path) -> dict[str, Any]:
        write(folder)
        return {"format": FORMAT, **manifest}

    return publish(root, fill)


def open_bundle(
    root: Path, digest: str, base: BaseModel, yield_to_engine: YieldToEngine = do_not_yield
) -> Bundle:
    """The bundle, fully verified for this base model; raises `InvalidBundle` with every problem.

    Checked: the digest and each file's sha256, the format, the base model's digest, the adapter's
    configuration, the tensors' names and shapes against the base model's layers, that all values
    are finite and no norm is absurd. `yield_to_engine` is called between pieces of the work.
    """
    folder = folder_of(root, digest)
    problems = verify(root, digest, partial(digest_file, yield_to_engine=yield_to_engine))
    if not problems:
        problems = list(_content_problems(folder, base, yield_to_engine))
    if problems:
        raise InvalidBundle(problems)
    return Bundle(digest, folder, read_manifest(folder))


def _content_problems(
    folder: Path, base: BaseModel, yield_to_engine: YieldToEngine
) -> Iterator[str]:
    manifest = read_manifest(folder)
    if manifest.get("format") != FORMAT:
        yield f"format is {manifest.get('format')!r}, not {FORMAT!r}"
    if manifest.get("base_digest") != base.digest:
        yield f"base_digest: trained for another base model ({manifest.get('base_digest')})"
    extra = set(manifest.get("files", {})) - {CONFIG, WEIGHTS, "recipe.json", "README.md"}
    if extra:
        yield f"files: unexpected {', '.join(sorted(extra))}"
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        yield f"{CONFIG} cannot be read"
        return
    if config.get("peft_type") in virtual_tokens.KINDS:
        yield from _soft_prompt_problems(folder / WEIGHTS, config, base, yield_to_engine)
        return
    problems = list(_config_problems(config))
    yield from problems
    yield_to_engine()
    if not problems:
        yield from _weight_problems(
            folder / WEIGHTS, config, linear_shapes(base.folder), yield_to_engine
        )


def _soft_prompt_problems(
    path: Path, config: Mapping[str, Any], base: BaseModel, yield_to_engine: YieldToEngine
) -> Iterator[str]:
    """What is wrong with a prefix or a prompt: its configuration, else its one tensor."""
    from safetensors import SafetensorError, safe_open

    reason = virtual_tokens.why_not_served_by(base.folder)
    if reason is not None:
        yield f"peft_type is {config['peft_type']!r}: {reason}"
        return
    sizes = virtual_tokens.prompt_sizes(base.folder)
    problems = list(virtual_tokens.config_problems(config, sizes, HARMLESS))
    yield from problems
    yield_to_engine()
    if problems:
        return
    shape = sizes.shape(config["peft_type"], config["num_virtual_tokens"])
    max_norm = virtual_tokens.MAX_ROOT_MEAN_SQUARE * (shape[0] * shape[1]) ** 0.5
    try:
        with safe_open(path, framework="pt") as file:
            keys = set(file.keys())
            for odd in sorted(keys - {virtual_tokens.KEY}):
                yield f"{odd} is not a soft prompt's tensor"
            if virtual_tokens.KEY not in keys:
                yield f"{WEIGHTS} holds no {virtual_tokens.KEY}"
                return
            tensor = file.get_tensor(virtual_tokens.KEY)
            yield from _tensor_problems(virtual_tokens.KEY, tensor, shape, max_norm)
    except (SafetensorError, OSError, ValueError) as error:
        yield f"{WEIGHTS} cannot be read: {error}"


def _config_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Whatever is not plain LoRA: peft has many fields that change what an adapter computes, or
    the base model itself, so all but a known few must be left at nothing."""
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    targets = config.get("target_modules")
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')!r}, not 'LORA'"
    if config.get("task_type") != "CAUSAL_LM":
        yield f"task_type is {config.get('task_type')!r}, not 'CAUSAL_LM'"
    if not _is_number(rank, int) or not 1 <= rank <= MAX_RANK:
        yield f"r is {rank!r}; it must lie in 1..{MAX_RANK}"
    elif not _is_number(alpha, int, float) or not 0 < alpha <= MAX_SCALING * rank:
        yield f"lora_alpha is {alpha!r}; it must lie in (0, {MAX_SCALING} r]"
    if not isinstance(targets, list) or not all(isinstance(t, str) and t for t in targets):
        yield "target_modules is not a list of names"
    dropout = config.get("lora_dropout", 0.0)
    if not _is_number(dropout, int, float) or not 0 <= dropout < 1:
        yield f"lora_dropout is {dropout!r}; it must lie in [0, 1)"
    if not isinstance(config.get("use_rslora", False), bool):
        yield "use_rslora is neither true nor false"
    for field, value in config.items():
        if field not in CHECKED | HARMLESS and value != NEUTRAL.get(field) and value:
            yield f"{field} is not supported"


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _weight_problems(
    path: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, int]],
    yield_to_engine: YieldToEngine,
) -> Iterator[str]:
    from safetensors import SafetensorError, safe_open

    sides: dict[str, set[str]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                yield_to_engine()
                match = _KEY.fullmatch(key)
                if match and match["module"] in shapes:
                    sides.setdefault(match["module"], set()).add(match["side"])
                    shape = _expected_shape(match["side"], shapes[match["module"]], config["r"])
                    yield from _tensor_problems(key, file.get_tensor(key), shape)
                else:
                    yield f"{key} is not a LoRA matrix of this base model"
    except (SafetensorError, OSError, ValueError) as error:
        yield f"{WEIGHTS} cannot be read: {error}"
        return
    yield from _module_problems(sides, shapes.keys(), config["target_modules"])


def _expected_shape(side: str, module: tuple[int, int], rank: int) -> tuple[int, int]:
    out_features, in_features = module
    return (rank, in_features) if side == "A" else (out_features, rank)


def _tensor_problems(
    key: str, tensor: Tensor, shape: tuple[int, int], max_norm: float = MAX_NORM
) -> Iterator[str]:
    if tuple(tensor.shape) != shape:
        yield f"{key} has shape {tuple(tensor.shape)}, not {shape}"
    elif str(tensor.dtype) not in FLOATS:
        yield f"{key} holds {tensor.dtype}, not one of {', '.join(FLOATS)}"
    elif not (norm := float(tensor.float().norm())) <= max_norm:  # so is NaN
        if tensor.isfinite().all():
            yield f"{key} has norm {norm:.3g}, over the limit of {max_norm:g}"
        else:
            yield f"{key} holds NaN or infinite values"


def _module_problems(
    sides: Mapping[str, set[str]], modules: Collection[str], targets: Sequence[str]
) -> Iterator[str]:
    for module, found in sides.items():
        if found != {"A", "B"}:
            yield f"{module} has only lora_{found.pop()}"
    if not sides:
        yield f"{WEIGHTS} holds no LoRA matrices"
        return
    targeted = {module for module in modules if _is_target(module, targets)}
    if targeted != sides.keys():
        odd = sorted(targeted ^ sides.keys())
        yield f"target_modules and {WEIGHTS} disagree about {len(odd)} modules, such as {odd[0]}"


def _is_target(module: str, targets: Sequence[str]) -> bool:
    """peft's rule for a list of names."""
    return any(module == target or module.endswith(f".{target}") for target in targets)
