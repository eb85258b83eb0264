"""The rank and the scaling of each module of a LoRA adapter, as its configuration gives them.

peft allows a rank and an alpha of their own for some modules (`rank_pattern`, `alpha_pattern`),
by regular expressions. A bundle has them by the module's whole name instead, so that a server
never runs an expression of somebody else's (`engine.adapters.foreign` resolves them). Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from engine.adapters.files import is_number

MAX_RANK = 256
MAX_SCALING = 64
PATTERNS = ("rank_pattern", "alpha_pattern")


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """The rank of a module's matrices."""
    rank: int = (config.get("rank_pattern") or {}).get(module, config["r"])
    return rank


def scaling_of(config: Mapping[str, Any], module: str) -> float:
    """The factor of a module's low-rank product: alpha / r (Hu et al. 2021, sec. 4.1).

    rsLoRA (Kalajdzievski 2023, sec. 3) divides by the root of the rank instead.
    """
    rank = rank_of(config, module)
    alpha: float = (config.get("alpha_pattern") or {}).get(module, config["lora_alpha"])
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def size_problems(rank: Any, alpha: Any, of: str = "") -> Iterator[str]:
    """The reasons to refuse a rank and an alpha; `of` follows their names in the message."""
    if not is_number(rank, int) or not 1 <= rank <= MAX_RANK:
        yield f"r{of} is {rank!r}; it must lie in 1..{MAX_RANK}"
    elif not is_number(alpha, int, float) or not 0 < alpha <= MAX_SCALING * rank:
        yield f"lora_alpha{of} is {alpha!r}; it must lie in (0, {MAX_SCALING} r]"


def pattern_problems(config: Mapping[str, Any], modules: Collection[str]) -> Iterator[str]:
    """The reasons to refuse the ranks and alphas that some modules have for themselves.

    `config` has a rank and an alpha for the others; `modules` are the base model's layers.
    """
    given = {field: config.get(field) or {} for field in PATTERNS}
    for field, pattern in given.items():
        if not isinstance(pattern, Mapping):
            yield f"{field} is not a table from modules to numbers"
            return
        for name in sorted(pattern.keys() - set(modules)):
            yield f"{field} names {name!r}, which is not the whole name of a layer"
    ranks, alphas = given.values()
    for module in sorted((ranks.keys() | alphas.keys()) & set(modules)):
        rank, alpha = ranks.get(module, config["r"]), alphas.get(module, config["lora_alpha"])
        yield from size_problems(rank, alpha, f" of {module}")
