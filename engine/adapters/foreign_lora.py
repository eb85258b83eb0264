"""The modules of a LoRA adapter of peft, with the rank and the alpha of each, by whole names.

A configuration of peft names layers by suffixes, indices or regular expressions, and gives some of
them ranks and alphas of their own by expressions too. peft's own rules resolve them here, against
the base model's layers and the tensors that were saved. Reads shapes; reads no tensor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.files import WEIGHTS, is_number
from engine.adapters.lora import MATRIX_KEY, lora_shape
from engine.errors import InvalidBundle
from engine.models.catalogue import BaseModel, linear_shapes

if TYPE_CHECKING:
    from peft import LoraConfig

TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
READ_BY_PEFT = (*TARGETS, "r", "lora_alpha", "rank_pattern", "alpha_pattern")
EMBEDDINGS = re.compile(r"lora_embedding_|embed|\bwte\b|lm_head|output_layer")

Sizes = dict[str, Any]  # module -> its rank or its alpha


def resolve_modules(config: Mapping[str, Any], weights: Path, base: BaseModel) -> dict[str, Any]:
    """`target_modules`, `r`, `lora_alpha` and their patterns by whole names.

    Raises `InvalidBundle` where configuration, tensors and base model do not fit together.
    """
    shapes = linear_shapes(base.folder)
    saved = _saved_shapes(weights)
    modules = _saved_modules(saved, shapes, base)
    try:
        ranks, alphas = _sizes(config, shapes)
    except (TypeError, ValueError, re.error) as error:
        raise InvalidBundle([f"peft cannot read its configuration: {error}"]) from error
    if ranks.keys() != modules:
        odd = sorted(ranks.keys() ^ modules)
        raise InvalidBundle(
            [f"target_modules and {WEIGHTS} disagree about {len(odd)} modules, such as {odd[0]}"]
        )
    _check_shapes(saved, shapes, ranks, base)
    rank, other_ranks = _usual(ranks)
    alpha, other_alphas = _usual(alphas)
    return {
        "target_modules": _shortened(modules, shapes.keys()),
        "r": rank,
        "lora_alpha": alpha,
        **({"rank_pattern": other_ranks} if other_ranks else {}),
        **({"alpha_pattern": other_alphas} if other_alphas else {}),
    }


def _saved_shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidBundle([f"{WEIGHTS} cannot be read: {error}"]) from error


def _saved_modules(
    saved: Mapping[str, object], shapes: Mapping[str, object], base: BaseModel
) -> set[str]:
    """The modules that the tensors belong to, all of them layers of the base model."""
    matches = {key: MATRIX_KEY.fullmatch(key) for key in saved}
    modules = {key: match["module"] if match else None for key, match in matches.items()}
    odd = sorted(key for key, module in modules.items() if module not in shapes)
    if trained := [key for key in odd if EMBEDDINGS.search(key)]:
        raise InvalidBundle(
            [
                f"{WEIGHTS} holds trained embeddings or an output head ({trained[0]}), which no"
                " adapter may replace here; train it on the linear layers alone"
            ]
        )
    if odd:
        raise InvalidBundle(
            [
                f"{len(odd)} of {len(saved)} tensors belong to no layer of {Path(base.name).name},"
                f" such as {odd[0]}: it was trained on a model of another kind"
            ]
        )
    if not saved:
        raise InvalidBundle([f"{WEIGHTS} holds no LoRA matrices"])
    return {module for module in modules.values() if module is not None}


def _sizes(config: Mapping[str, Any], modules: Collection[str]) -> tuple[Sizes, Sizes]:
    """Rank and alpha of each targeted module, by peft's own rules."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    given = {key: config[key] for key in READ_BY_PEFT if config.get(key) is not None}
    settings: LoraConfig = LoraConfig(**given)
    if settings.target_modules is None:
        raise ValueError("target_modules is missing")
    targets = [
        module
        for module in modules
        if settings.target_modules == "all-linear" or check_target_module_exists(settings, module)
    ]

    def by_pattern(pattern: Mapping[str, Any], usual: Any) -> Sizes:
        return {
            module: pattern.get(get_pattern_key(list(pattern), module), usual) for module in targets
        }

    ranks = by_pattern(settings.rank_pattern or {}, settings.r)
    alphas = by_pattern(settings.alpha_pattern or {}, settings.lora_alpha)
    if odd := [v for v in (*ranks.values(), *alphas.values()) if not is_number(v, int, float)]:
        raise ValueError(f"a rank or an alpha is {odd[0]!r}")
    return ranks, alphas


def _check_shapes(
    saved: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, int]],
    ranks: Sizes,
    base: BaseModel,
) -> None:
    wrong = []
    for key, shape in sorted(saved.items()):
        if match := MATRIX_KEY.fullmatch(key):
            module = match["module"]
            expected = lora_shape(match["side"], shapes[module], ranks[module])
            if shape != expected:
                wrong.append(f"{key} with shape {shape} instead of {expected}")
    if wrong:
        raise InvalidBundle(
            [
                f"{len(wrong)} of {len(saved)} matrices do not fit the layers of"
                f" {Path(base.name).name}, such as {wrong[0]}"
            ]
        )


def _usual(sizes: Sizes) -> tuple[Any, Sizes]:
    """The most frequent value, and the modules that have another."""
    usual = Counter(sizes.values()).most_common(1)[0][0]
    return usual, {module: size for module, size in sorted(sizes.items()) if size != usual}


def _shortened(modules: Collection[str], layers: Collection[str]) -> list[str]:
    """The last parts of the modules' names where these name no other layer, else whole names."""
    last = {module.rsplit(".", 1)[-1] for module in modules}
    also = {layer for layer in layers if layer.rsplit(".", 1)[-1] in last}
    return sorted(last if also == set(modules) else modules)
