"""A recipe is read whole or refused with every reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.errors import InvalidInput
from tuning.recipe import (
    AdapterRecipe,
    DpoRecipe,
    Recipe,
    SftRecipe,
    default_recipe_text,
    origins,
    read_recipe,
    recipe_from_dict,
)


def problems(values: Any) -> list[str]:
    with pytest.raises(InvalidInput, match=r"^recipe refused: ") as refused:
        recipe_from_dict(values)
    return str(refused.value).removeprefix("recipe refused: ").split("; ")


def test_the_shipped_file_says_what_the_code_defaults_to() -> None:
    assert read_recipe(None) == Recipe()
    assert set(origins(yaml.safe_load(default_recipe_text())).values()) == {"recipe"}


def test_a_recipe_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("adapter: {rank: 4}\ndpo: {beta: 1, epochs: 3}\nseed: 7\n")
    assert read_recipe(file) == Recipe(
        adapter=AdapterRecipe(rank=4), dpo=DpoRecipe(beta=1.0, epochs=3.0), seed=7
    )
    file.write_text("")
    assert read_recipe(file) == Recipe()


def test_plain_values_make_the_same_recipe_again() -> None:
    recipe = Recipe(sft=SftRecipe(epochs=0.5, learning_rate=3e-5), max_sequence_tokens=99)
    assert recipe_from_dict(recipe.as_dict()) == recipe


def test_each_value_knows_where_it_came_from() -> None:
    found = origins({"dpo": {"beta": 0.2}, "seed": 0})
    assert {name for name, origin in found.items() if origin == "recipe"} == {"dpo.beta", "seed"}
    assert found["dpo.epochs"] == found["adapter.rank"] == "default"
    assert len(found) == 3 + 3 + 5 + 2
    assert origins(None) == dict.fromkeys(found, "default")


def test_unknown_keys_and_wrong_types_are_all_named_at_once() -> None:
    found = problems(
        {
            "adaptor": {},
            "adapter": {"rank": "16", "alfa": 1},
            "sft": 3,
            "dpo": {"beta": True, "epochs": "1e-4"},
            "seed": 0.5,
        }
    )
    assert [problem.split(":")[0] for problem in found] == [
        "adaptor", "adapter.alfa", "adapter.rank", "sft", "dpo.epochs", "dpo.beta", "seed",
    ]  # fmt: skip
    assert "known: rank, alpha, dropout" in found[1]
    assert "'16' is not a whole number" in found[2]
    assert "True is not a number" in found[5]


def test_values_out_of_range_are_all_named_at_once() -> None:
    found = problems(
        {
            "adapter": {"rank": 257, "alpha": 0, "dropout": 1.0},
            "sft": {"learning_rate": 0, "batch_pairs": 0, "epochs": -1},
            "dpo": {"beta": 0, "sft_weight": -1},
            "max_sequence_tokens": 15,
            "seed": -1,
        }
    )
    assert len(found) == 10


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"adapter": {"rank": 0}}, "adapter.rank"),
        ({"adapter": {"dropout": float("nan")}}, "adapter.dropout"),
        ({"sft": {"epochs": 0}, "dpo": {"epochs": 0}}, "not all be 0"),
        ({"dpo": {"learning_rate": 1}}, "learning_rate"),
        ({"dpo": {"batch_pairs": -3}}, "batch_pairs"),
        ({"dpo": {"beta": float("nan")}}, "dpo.beta"),
        ([], "expected keys and values"),
        ("rank: 4", "expected keys and values"),
    ],
)
def test_one_problem_is_named_alone(values: Any, reason: str) -> None:
    (problem,) = problems(values)
    assert reason in problem


@pytest.mark.parametrize(
    "values",
    [
        {"adapter": {"rank": 256, "alpha": 1, "dropout": 0}},
        {"sft": {"epochs": 0}},
        {"dpo": {"epochs": 0, "sft_weight": 0}},
        {"max_sequence_tokens": 16},
    ],
)
def test_the_limits_themselves_are_allowed(values: dict[str, Any]) -> None:
    recipe_from_dict(values)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", None], ids=["yaml", "bytes", "missing"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "recipe.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot read the recipe"):
        read_recipe(file)


def test_a_recipe_file_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(InvalidInput):
        read_recipe(file)
    assert not (tmp_path / "made").exists()
