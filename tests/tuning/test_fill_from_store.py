"""Values left to the store come from the snapshot, say so, or are refused with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import InvalidInput
from tuning.methods.dpo import DpoRecipe
from tuning.methods.kto import KtoRecipe
from tuning.recipe import Recipe, fill_from_store

ROBUST = Recipe(dpo=DpoRecipe(loss="robust", flip_rate="store"))
KTO = Recipe(kto=KtoRecipe(epochs=1))


def test_the_flip_rate_is_the_stores_and_says_so() -> None:
    recipe, origins = fill_from_store(
        ROBUST, {"dpo.flip_rate": "recipe", "seed": "default"}, flip_rate=0.12, good=0, bad=0
    )
    assert recipe == replace(ROBUST, dpo=replace(ROBUST.dpo, flip_rate=0.12))
    assert origins == {"dpo.flip_rate": "store", "seed": "default"}


@pytest.mark.parametrize(
    ("rate", "reason"), [(None, "the snapshot cannot tell"), (0.5, "no more than coins do")]
)
def test_a_flip_rate_that_is_of_no_use_is_refused(rate: float | None, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        fill_from_store(ROBUST, {}, flip_rate=rate, good=0, bad=0)


def test_a_flip_rate_in_the_recipe_is_kept() -> None:
    recipe = Recipe(dpo=DpoRecipe(loss="robust", flip_rate=0.2))
    assert fill_from_store(recipe, {}, flip_rate=None, good=0, bad=0) == (recipe, {})


@pytest.mark.parametrize(
    ("good", "bad", "weights"), [(10, 40, (4.0, 1.0)), (30, 20, (1.0, 1.5)), (5, 5, (1.0, 1.0))]
)
def test_good_and_bad_answers_weigh_alike_in_sum(
    good: int, bad: int, weights: tuple[float, float]
) -> None:
    recipe, origins = fill_from_store(KTO, {}, flip_rate=None, good=good, bad=bad)
    assert (recipe.kto.desirable_weight, recipe.kto.undesirable_weight) == weights
    assert good * weights[0] == bad * weights[1]
    assert origins == {"kto.desirable_weight": "store", "kto.undesirable_weight": "store"}


@pytest.mark.parametrize(
    ("kto", "weights"),
    [
        (KtoRecipe(epochs=1, desirable_weight=2.0), (2.0, 0.5)),  # 10 * 2 = 40 * 0.5
        (KtoRecipe(epochs=1, undesirable_weight=0.25), (1.0, 0.25)),  # 10 * 1 = 40 * 0.25
        (KtoRecipe(epochs=1, desirable_weight=3.0, undesirable_weight=7.0), (3.0, 7.0)),
    ],
)
def test_a_weight_in_the_recipe_is_kept(kto: KtoRecipe, weights: tuple[float, float]) -> None:
    recipe, _ = fill_from_store(Recipe(kto=kto), {}, flip_rate=None, good=10, bad=40)
    assert (recipe.kto.desirable_weight, recipe.kto.undesirable_weight) == weights


@pytest.mark.parametrize(("good", "bad"), [(7, 0), (0, 7)])
def test_one_sided_judgements_are_refused_with_their_counts(good: int, bad: int) -> None:
    with pytest.raises(InvalidInput, match=f"{good} good and {bad} bad"):
        fill_from_store(KTO, {}, flip_rate=None, good=good, bad=bad)


def test_a_stage_that_does_not_run_is_left_alone() -> None:
    off = replace(ROBUST, dpo=replace(ROBUST.dpo, epochs=0))
    assert fill_from_store(off, {}, flip_rate=None, good=7, bad=0) == (off, {})
