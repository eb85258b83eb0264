"""The figures of a demo name the recipe that made them."""

from __future__ import annotations

from dataclasses import replace

from app.demo.figures import recipe_changes
from tuning.recipe import read_recipe


def test_a_recipe_is_described_by_what_differs_from_the_shipped_one() -> None:
    shipped = read_recipe(None)
    assert recipe_changes(replace(shipped, seed=7)) == {}
    softer = replace(shipped, weights="int8", joint=replace(shipped.joint, label_smoothing=0.1))
    assert recipe_changes(softer) == {"joint.label_smoothing": 0.1, "weights": "int8"}
