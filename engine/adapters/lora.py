"""LoRA adapters (Hu et al. 2021): which are accepted, and their opening in the fast engine.

Knows the files; `lora_matrices.py` has the matrices and their product.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.files import HARMLESS, WEIGHTS, is_number, tensor_problems
from engine.adapters.lora_config import PATTERNS, pattern_problems, rank_of, size_problems
from engine.models.catalogue import BaseModel, linear_shapes
from engine.time_slices import YieldToEngine

if TYPE_CHECKING:
    from engine.adapters.interface import DecoderHost
    from engine.adapters.lora_matrices import LoraMatrices

PEFT_TYPES = frozenset({"LORA"})
# The matrices of a trained adapter of rank 16 have Frobenius norms of 0.1 to 20
MAX_NORM = 1_000.0
CHECKED = frozenset(
    {"peft_type", "task_type", "r", "lora_alpha", "target_modules", "lora_dropout", "use_rslora"}
).union(PATTERNS)
# Fields whose value for "not used" is not false, null or empty
NEUTRAL = {
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
}
MATRIX_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """Implements `DecoderAdapter` with low-rank updates of the decoder's matrices."""

    digest: str
    matrices: LoraMatrices
    virtual_tokens: int = 0
    virtual_positions: int = 0

    def close(self) -> None:
        """See `Adapter`; the memory is freed with the object."""


def open_adapter(digest: str, folder: Path, host: DecoderHost) -> LoraAdapter:
    """See `AdapterKind`."""
    from engine.adapters.lora_matrices import LoraMatrices

    with host.thread.background() as yield_to_engine:
        matrices = LoraMatrices(
            folder,
            host.layout,
            device=host.device,
            native=host.native,
            yield_to_engine=yield_to_engine,
        )
    return LoraAdapter(digest, matrices)


def problems(
    folder: Path, config: Mapping[str, Any], base: BaseModel, yield_to_engine: YieldToEngine
) -> Iterator[str]:
    """See `AdapterKind`."""
    shapes = linear_shapes(base.folder)
    found = list(config_problems(config)) or list(pattern_problems(config, shapes))
    yield from found
    yield_to_engine()
    if not found:
        yield from _weight_problems(folder / WEIGHTS, config, shapes, yield_to_engine)


def config_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Every reason why a configuration is not plain LoRA.

    peft has many fields that change what an adapter computes, or the base model itself, so all but
    a known few must have the value for "not used".
    """
    targets = config.get("target_modules")
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')!r}, not 'LORA'"
    if config.get("task_type") != "CAUSAL_LM":
        yield f"task_type is {config.get('task_type')!r}, not 'CAUSAL_LM'"
    yield from size_problems(config.get("r"), config.get("lora_alpha"))
    if not isinstance(targets, list) or not all(isinstance(t, str) and t for t in targets):
        yield "target_modules is not a list of names"
    dropout = config.get("lora_dropout", 0.0)
    if not is_number(dropout, int, float) or not 0 <= dropout < 1:
        yield f"lora_dropout is {dropout!r}; it must lie in [0, 1)"
    if not isinstance(config.get("use_rslora", False), bool):
        yield "use_rslora is neither true nor false"
    for field, value in config.items():
        if field not in CHECKED | HARMLESS and value != NEUTRAL.get(field) and value:
            yield f"{field} is not supported"


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
                match = MATRIX_KEY.fullmatch(key)
                if match and match["module"] in shapes:
                    module, side = match["module"], match["side"]
                    sides.setdefault(module, set()).add(side)
                    shape = lora_shape(side, shapes[module], rank_of(config, module))
                    yield from tensor_problems(key, file.get_tensor(key), shape, MAX_NORM)
                else:
                    yield f"{key} is not a LoRA matrix of this base model"
    except (SafetensorError, OSError, ValueError) as error:
        yield f"{WEIGHTS} cannot be read: {error}"
        return
    yield from _module_problems(sides, shapes.keys(), config["target_modules"])


def lora_shape(side: str, module: tuple[int, int], rank: int) -> tuple[int, int]:
    """Shape of a matrix: `side` is A or B, `module` the shape of the layer it belongs to."""
    out_features, in_features = module
    return (rank, in_features) if side == "A" else (out_features, rank)


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
