"""A recipe is read whole or refused with every reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from tuning.methods.dpo import DpoRecipe
from tuning.methods.joint import JointRecipe
from tuning.methods.kto import KtoRecipe
from tuning.methods.orpo import OrpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import (
    Recipe,
    origins,
    read_recipe,
    read_recipe_with_origins,
    recipe_from_dict,
    shipped_recipes,
)
from tuning.recipe_sections import AdapterRecipe, ReplayRecipe


def problems(values: Any) -> list[str]:
    with pytest.raises(InvalidInput, match=r"^recipe refused: ") as refused:
        recipe_from_dict(values)
    return str(refused.value).removeprefix("recipe refused: ").split("; ")


def names_in(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from names_in(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_shipped_file_says_what_the_code_defaults_to() -> None:
    """All but which methods run: the code's stages are what a file that names one begins with."""
    assert read_recipe(None) == Recipe(
        joint=JointRecipe(epochs=3), sft=SftRecipe(epochs=0), dpo=DpoRecipe(epochs=0)
    )
    assert set(read_recipe_with_origins("default")[1].values()) == {"recipe"}


def test_a_recipe_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("adapter: {rank: 4}\ndpo: {beta: 1, epochs: 3}\nseed: 7\n")
    assert read_recipe(file) == Recipe(
        adapter=AdapterRecipe(rank=4), dpo=DpoRecipe(beta=1.0, epochs=3.0), seed=7
    )


@pytest.mark.parametrize("text", ["", "seed: 0", "adapter: {rank: 16}", "joint: {beta: 0.1}"])
def test_a_file_that_names_no_other_method_trains_the_joint_objective(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert read_recipe(file) == read_recipe(None)


@pytest.mark.parametrize("text", ["sft: {epochs: 2}", "dpo: {}", "kto: {epochs: 0}"])
def test_a_file_that_names_a_stage_trains_in_stages(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert list(read_recipe(file).stages) == ["sft", "dpo"]


def test_plain_values_make_the_same_recipe_again() -> None:
    recipe = Recipe(sft=SftRecipe(epochs=0.5, learning_rate=3e-5), max_sequence_tokens=99)
    assert recipe_from_dict(recipe.as_dict()) == recipe


def test_each_value_knows_where_it_came_from() -> None:
    found = origins({"dpo": {"beta": 0.2}, "seed": 0})
    assert {name for name, origin in found.items() if origin == "recipe"} == {"dpo.beta", "seed"}
    assert found["dpo.epochs"] == found["adapter.rank"] == "default"
    assert sorted(found) == sorted(names_in(Recipe().as_dict()))
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
        "adaptor",
        "adapter.alfa",
        "adapter.rank",
        "sft",
        "dpo.epochs",
        "dpo.beta",
        "seed",
    ]
    assert "known: rank, alpha, dropout" in found[1]
    assert "'16' is not a whole number" in found[2]
    assert "True is not a number" in found[5]


def test_a_value_of_several_kinds_says_which_it_may_be() -> None:
    found = problems(
        {
            "adapter": {"rank_stabilised": 1},
            "sft": {"answers": "all"},
            "dpo": {"loss": "hinge", "flip_rate": "guess"},
            "replay": {"file": 3},
        }
    )
    assert found == [
        "adapter.rank_stabilised: 1 is not true or false",
        "sft.answers: 'all' is not chosen, demonstrations, both",
        "dpo.loss: 'hinge' is not sigmoid, ipo, robust, length-normalised",
        "dpo.flip_rate: 'guess' is not a number or store or nothing",
        "replay.file: 3 is not a text or nothing",
    ]


def test_values_out_of_range_are_all_named_at_once() -> None:
    found = problems(
        {
            "adapter": {"rank": 257, "alpha": 0, "dropout": 1.0},
            "sft": {"learning_rate": 0, "batch_pairs": 0, "epochs": -1},
            "dpo": {"beta": 0, "sft_weight": -1},
            "kto": {"batch_answers": 1, "beta": 0, "desirable_weight": 0.0},
            "orpo": {"odds_weight": 0},
            "replay": {"share": 1},
            "max_sequence_tokens": 15,
            "seed": -1,
        }
    )
    assert len(found) == 15


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"adapter": {"rank": 0}}, "adapter.rank"),
        ({"adapter": {"dropout": float("nan")}}, "adapter.dropout"),
        ({"sft": {"epochs": 0}, "dpo": {"epochs": 0}}, "not all be 0"),
        ({"dpo": {"learning_rate": 1}}, "learning_rate"),
        ({"dpo": {"batch_pairs": -3}}, "batch_pairs"),
        ({"dpo": {"beta": float("nan")}}, "dpo.beta"),
        ({"kto": {"epochs": -1}}, "epochs must not be negative"),
        ({"orpo": {"batch_pairs": 0}}, "batch_pairs"),
        ({"dpo": {"label_smoothing": 0.1}}, "dpo.label_smoothing: unknown key"),
        ({"dpo": {"flip_rate": 0.1}}, "does nothing with dpo.loss sigmoid"),
        ({"dpo": {"loss": "ipo", "flip_rate": "store"}}, "does nothing with dpo.loss ipo"),
        ({"dpo": {"loss": "robust"}}, "dpo.loss robust needs dpo.flip_rate"),
        ({"dpo": {"loss": "robust", "flip_rate": 0}}, "must lie in (0, 0.5)"),
        ({"dpo": {"loss": "robust", "flip_rate": 0.5}}, "must lie in (0, 0.5)"),
        (
            {"sft": {"epochs": 0}, "replay": {"file": "a.json"}},
            "replay.file needs joint.epochs or sft",
        ),
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
        {"dpo": {"loss": "robust", "flip_rate": 0.49}},
        {"kto": {"epochs": 1, "batch_answers": 2, "desirable_weight": "store"}},
    ],
)
def test_the_limits_themselves_are_allowed(values: dict[str, Any]) -> None:
    recipe_from_dict(values)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (
            "kto",
            {"sft": SftRecipe(epochs=0), "dpo": DpoRecipe(epochs=0), "kto": KtoRecipe(epochs=1)},
        ),
        (
            "orpo",
            {"sft": SftRecipe(epochs=0), "dpo": DpoRecipe(epochs=0), "orpo": OrpoRecipe(epochs=1)},
        ),
        ("sft-dpo", {}),
        ("dpo-robust", {"dpo": DpoRecipe(loss="robust", flip_rate="store")}),
        ("dpo-ipo", {"dpo": DpoRecipe(loss="ipo", beta=1.0)}),
        ("dpo-length-normalised", {"dpo": DpoRecipe(loss="length-normalised", beta=5.0)}),
    ],
)
def test_a_shipped_recipe_is_chosen_by_its_name(name: str, changed: dict[str, Any]) -> None:
    assert read_recipe(Path(name)) == Recipe(**changed)


def test_a_shipped_recipe_says_which_values_are_its_own() -> None:
    _, found = read_recipe_with_origins("dpo-robust")
    own = {name for name, origin in found.items() if origin == "recipe"}
    assert own == {"dpo.loss", "dpo.flip_rate"}


def test_every_shipped_recipe_can_be_read() -> None:
    assert {"default", "kto", "orpo"} <= set(shipped_recipes())
    for name in shipped_recipes():
        read_recipe(name)


def test_a_name_that_is_neither_a_file_nor_shipped_lists_those_that_are() -> None:
    with pytest.raises(InvalidInput, match=r"shipped: .*default, .*kto"):
        read_recipe("default.yml")


def test_a_replay_file_is_found_beside_the_recipe_and_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("replay: {file: more.json, share: 0.25}")
    with pytest.raises(InvalidInput, match="there is no file"):
        read_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "more.json").write_text("[]")
    digest = "sha256:" + hashlib.sha256(b"[]").hexdigest()
    assert read_recipe(tmp_path / "recipe.yaml").replay == ReplayRecipe(
        str(tmp_path / "more.json"), 0.25, digest
    )


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
