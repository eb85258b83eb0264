"""The recipe's fields as a form and the command line enter them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from tuning.recipe import change_recipe, origins, read_recipe, shipped_recipes
from tuning.recipe_form import field_values, read_changes, recipe_fields, recipe_of_form

FIELDS = {each.name: each for each in recipe_fields()}


def test_the_fields_are_those_of_the_recipe_and_each_says_what_it_does() -> None:
    assert set(FIELDS) == set(origins({}))
    assert all(each.help for each in FIELDS.values())


@pytest.mark.parametrize(
    ("name", "kind", "choices"),
    [
        ("adapter.rank", "whole", ()),
        ("joint.epochs", "number", ()),
        ("adapter.rank_stabilised", "truth", ()),
        ("sft.answers", "choice", ("chosen", "demonstrations", "both")),
        ("joint.good_weight", "text", ()),
        ("adapter.start", "text", ()),
    ],
)
def test_a_field_is_entered_as_its_type_says(name: str, kind: str, choices: Any) -> None:
    assert (FIELDS[name].kind, FIELDS[name].choices) == (kind, choices)


@pytest.mark.parametrize("source", shipped_recipes())
def test_a_form_that_nobody_touched_is_the_recipe(source: str) -> None:
    if source == "full":
        assert read_recipe(source).adapter.kind == "full"
    entered = {
        name: "" if value is None else value if isinstance(value, bool) else str(value)
        for name, value in field_values(read_recipe(source)).items()
    }
    recipe, _, changed = recipe_of_form(source, entered)
    assert (recipe, changed) == (read_recipe(source), [])


def test_what_was_entered_replaces_the_recipe_s_value_and_says_so() -> None:
    entered = {"joint.epochs": "2", "adapter.rank": 8.0, "joint.good_weight": "0.5"}
    recipe, where, changed = recipe_of_form("auto", entered)
    assert (recipe.joint.epochs, recipe.adapter.rank, recipe.joint.good_weight) == (2.0, 8, 0.5)
    assert sorted(changed) == ["adapter.rank", "joint.epochs", "joint.good_weight"]
    assert (where["joint.epochs"], where["search.rates"], where["seed"]) == (
        "asked",
        "recipe",
        "default",
    )


def test_the_recipe_s_own_validation_refuses_a_form_with_every_problem() -> None:
    entered = {"joint.epochs": "-1", "seed": "-5"}
    with pytest.raises(InvalidInput) as refused:
        recipe_of_form("auto", entered)
    assert "joint.epochs must not be negative" in str(refused.value)
    assert "seed must not be negative" in str(refused.value)
    with pytest.raises(InvalidInput, match=r"adapter\.rank: 'many' is not a whole number"):
        recipe_of_form("auto", {"adapter.rank": "many"})
    with pytest.raises(InvalidInput, match=r"adapter\.rank: None is not a whole number"):
        recipe_of_form("auto", {"adapter.rank": ""})


def test_assignments_of_the_command_line_are_read_by_the_field_s_type() -> None:
    assert read_changes(["joint.epochs=2", "joint.bad_weight=store", "adapter.start=null"]) == {
        "joint.epochs": 2,
        "joint.bad_weight": "store",
        "adapter.start": None,
    }
    assert read_changes(["adapter.rank_stabilised=true"]) == {"adapter.rank_stabilised": True}
    with pytest.raises(InvalidInput, match=r"no value 'joint\.epoch' \(known: adapter\.rank"):
        read_changes(["joint.epoch=2"])
    with pytest.raises(InvalidInput, match="no assignment"):
        read_changes(["joint.epochs"])


def test_a_change_of_a_file_s_malformed_section_leaves_it_to_be_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("dpo: 5\n")
    with pytest.raises(InvalidInput, match="dpo: expected keys and values"):
        change_recipe(file, {"dpo.beta": 0.2})
