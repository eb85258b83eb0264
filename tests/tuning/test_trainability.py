"""What cannot be trained is refused by name, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import InvalidInput, ModelUnavailable
from engine.models.catalogue import BaseModel
from tests.support.chatglm_models import WRITERS, write_tiny_chatglm
from tests.support.chatglm_weights import write_chatglm1_weights
from tuning.methods.base import TrainedKind
from tuning.methods.reward import RewardRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import AdapterRecipe
from tuning.trainability import require_trainable


def test_a_family_without_a_training_forward_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    with pytest.raises(ModelUnavailable, match="cannot train a model of type 'abacus'"):
        require_trainable(tmp_path, Recipe())


def test_so_is_a_setting_of_a_chatglm_that_is_not_covered(tmp_path: Path) -> None:
    write_chatglm1_weights(tmp_path, heads=4, hidden=64, inner=96, layers=2, eps=1e-5)
    config = json.loads((tmp_path / "config.json").read_text()) | {"quantization_bit": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match="quantization_bit = 4"):
        require_trainable(tmp_path, Recipe())


def test_the_families_that_are_served_can_be_trained(tmp_path: Path, tiny_base: BaseModel) -> None:
    require_trainable(tiny_base.folder, Recipe(reward=RewardRecipe(epochs=1)))
    for family in WRITERS:
        write_tiny_chatglm(tmp_path / family, family)
        require_trainable(tmp_path / family, Recipe())
        require_trainable(tmp_path / family, Recipe(adapter=AdapterRecipe(kind="prefix")))


def test_a_chatglm_has_no_reward_model(tmp_path: Path) -> None:
    write_tiny_chatglm(tmp_path, "glm4")
    with pytest.raises(InvalidInput, match=r"reward\.epochs and rloo\.epochs must be 0"):
        require_trainable(tmp_path, Recipe(reward=RewardRecipe(epochs=1)))


def test_all_weights_of_a_chatglm_are_not_trained(tmp_path: Path, tiny_base: BaseModel) -> None:
    write_tiny_chatglm(tmp_path, "glm4")
    full = Recipe(adapter=AdapterRecipe(kind="full"))
    with pytest.raises(InvalidInput, match=r"adapter\.kind full is not for a ChatGLM"):
        require_trainable(tmp_path, full)
    require_trainable(tiny_base.folder, full)


@pytest.mark.parametrize("kind", ["prompt", "p-tuning"])
def test_embeddings_before_a_prompt_need_a_model_that_reads_forward(
    kind: TrainedKind, tmp_path: Path
) -> None:
    recipe = Recipe(adapter=AdapterRecipe(kind=kind))
    write_tiny_chatglm(tmp_path / "first", "chatglm1")
    with pytest.raises(InvalidInput, match=f"adapter.kind is '{kind}'.*reads its prompt both ways"):
        require_trainable(tmp_path / "first", recipe)
    write_tiny_chatglm(tmp_path / "second", "chatglm2")
    require_trainable(tmp_path / "second", recipe)
