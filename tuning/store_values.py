"""Values that a recipe leaves to the store: what a snapshot says of its own data.

Pure: a recipe, the snapshot's flip rate and its counts in; a recipe of plain numbers out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.errors import InvalidInput
from tuning.recipe import KtoRecipe, Recipe

Settled = tuple[Recipe, dict[str, str]]


def settle(
    recipe: Recipe, origins: dict[str, str], *, flip_rate: float | None, good: int, bad: int
) -> Settled:
    """Replace each "store" of a stage that runs; its origin becomes "store".

    `flip_rate`: how often a single vote errs, None where the store cannot tell. `good`, `bad`:
    lone judgements that KTO will read. Raises `InvalidInput` where the store's value is of no use.
    """
    found: dict[str, dict[str, Any]] = {"dpo": {}, "kto": {}}
    if recipe.dpo.epochs > 0 and recipe.dpo.flip_rate == "store":
        found["dpo"]["flip_rate"] = _usable(flip_rate)
    if recipe.kto.epochs > 0 and good + bad > 0:
        found["kto"] = _weights(recipe.kto, good, bad)
    settled = replace(
        recipe,
        dpo=replace(recipe.dpo, **found["dpo"]),
        kto=replace(recipe.kto, **found["kto"]),
    )
    names = {f"{stage}.{name}": "store" for stage, values in found.items() for name in values}
    return settled, {**origins, **names}


def _usable(flip_rate: float | None) -> float:
    if flip_rate is None:
        raise InvalidInput(
            "dpo.flip_rate: store asks how often votes err, and the snapshot cannot tell: too few"
            " answers were judged by several people; give a number, or use another dpo.loss"
        )
    if flip_rate >= 0.5:
        raise InvalidInput(
            "dpo.flip_rate: store: votes on the same answers agree no more than coins do, so"
            " nothing can be learnt from them"
        )
    return flip_rate


def _weights(kto: KtoRecipe, good: int, bad: int) -> dict[str, float]:
    """Weights that are left to the store, so that both sides weigh alike in sum.

    good * desirable = bad * undesirable: the lower bound of Ethayarajh et al. 2024, eq. 8. Where
    both are left to the store, the larger side has weight 1.
    """
    if not good or not bad:
        raise InvalidInput(
            f"kto needs good and bad votes, and the snapshot has {good} good and {bad} bad"
        )
    up, down = kto.desirable_weight, kto.undesirable_weight
    if up == "store":
        wanted = max(1.0, bad / good) if down == "store" else float(down) * bad / good
        weights = {"desirable_weight": wanted}
        return weights | ({"undesirable_weight": max(1.0, good / bad)} if down == "store" else {})
    return {"undesirable_weight": float(up) * good / bad} if down == "store" else {}
