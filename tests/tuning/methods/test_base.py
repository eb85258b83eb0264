"""A method is one file and one field of the recipe: here is one, trained by a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
from datasets import Dataset
from peft import PeftModel
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import folder_of, read_manifest
from feedback_store.snapshots.snapshot import open_snapshot
from tests.support.job_events import steps_of
from tests.support.pairs import snapshot_of
from tuning.jobs.events import JobEvent
from tuning.methods.base import Method
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.methods.stage import Stage
from tuning.recipe import METHODS, Recipe, recipe_from_dict
from tuning.rows import ExampleKind, TrainingData
from tuning.train import run
from tuning.training_run import TrainingRun


@dataclass(frozen=True, slots=True)
class UnlikelihoodRecipe(Method):
    """Imitates the rejected answers: of no use, but it is all that a method has to say."""

    needs: ClassVar[str] = "rejected answers"

    epochs: float = 0
    learning_rate: float = 1e-3

    @property
    def example_kinds(self) -> frozenset[ExampleKind]:
        return frozenset({"pairs"})

    def rows(self, data: TrainingData) -> list[Mapping[str, Any]]:
        return [{"input_ids": row["prompt_ids"] + row["rejected_ids"]} for row in data.pairs.rows]

    def trainer(self, model: PeftModel, rows: Dataset, stage: Stage) -> Trainer:
        arguments = stage.arguments(
            epochs=self.epochs, learning_rate=self.learning_rate, batch=len(rows)
        )
        return SFTTrainer(
            model=model,
            args=SFTConfig(**arguments, max_length=None),
            train_dataset=rows,
            processing_class=stage.tokenizer,
            callbacks=[stage.callback],
        )


@dataclass(frozen=True, slots=True)
class RecipeWithOneMore(Recipe):
    unlikelihood: UnlikelihoodRecipe = field(default_factory=UnlikelihoodRecipe)


@pytest.mark.integration
def test_a_method_that_a_recipe_has_a_field_for_is_a_stage_of_the_run(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    recipe = RecipeWithOneMore(
        sft=SftRecipe(epochs=0), dpo=DpoRecipe(epochs=0), unlikelihood=UnlikelihoodRecipe(epochs=1)
    )
    snapshot = open_snapshot(Home(tmp_path).snapshots, snapshot_of(tmp_path, 6))
    events: list[JobEvent] = []
    job = TrainingRun(tiny_base, snapshot, recipe, {}, tmp_path / "job", Home(tmp_path))
    bundle = run(job, events.append)
    assert steps_of(events) == [("unlikelihood", 1)]
    manifest = read_manifest(folder_of(Home(tmp_path).bundles, bundle))
    assert manifest["rows"] == {"unlikelihood": len(snapshot.train.pairs)}
    assert manifest["recipe"]["unlikelihood"]["epochs"] == 1


def test_each_method_has_a_module_of_its_own_with_its_section_rules_and_rows() -> None:
    for name, method in METHODS.items():
        assert method.__module__ == f"tuning.methods.{name}"
        assert {"rules", "rows", "example_kinds"} <= vars(method).keys()
        trainers = import_module(f"tuning.methods.{name}_trainer")
        assert callable(getattr(trainers, f"make_{name}_trainer"))


def test_the_recipe_reads_the_section_of_each_method() -> None:
    values: dict[str, Any] = {name: {"epochs": 1} for name in (*METHODS, "reward")}
    values["pretrain"] = {"epochs": 1, "text": "book.txt"}
    assert list(recipe_from_dict(values).stages) == list(METHODS)
