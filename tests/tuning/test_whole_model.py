"""Full fine-tuning: every weight is trained, and the bundle is a model that is served by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from deploy.export.formats import export_release
from engine.adapters.bundle import is_model, open_bundle, open_model
from engine.errors import InvalidBundle, InvalidInput, ModelUnavailable
from engine.home import Home
from engine.models.catalogue import BaseModel, resolve
from engine.storage import read_manifest
from tests.helpers import make_bundle
from tests.support.job_events import of_type
from tests.support.pairs import snapshot_of
from tests.support.runs import NO_DPO, QUICK, Events, trained
from tuning import preparation
from tuning.jobs.events import MemoryPlanned, StepDone
from tuning.memory_plan import Load, shape_of, training_parts
from tuning.methods.pretrain import PretrainRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import read_recipe, recipe_from_dict
from tuning.recipe_sections import AdapterRecipe

pytestmark = pytest.mark.integration

WHOLE = replace(
    QUICK,
    adapter=AdapterRecipe(kind="full"),
    sft=SftRecipe(epochs=8, learning_rate=1e-3),
    dpo=NO_DPO,
)
Made = tuple[Path, str, Events]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Made:
    """A home, its bundle and the events of the run."""
    home, text = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("text") / "a.txt"
    text.write_text("The cat sat on the warm stone. " * 20)
    pretrain = PretrainRecipe(epochs=1, block_tokens=32, text=str(text))
    recipe = replace(WHOLE, pretrain=pretrain)
    bundle, events = trained(home, tiny_base, snapshot_of(home, 8), recipe)
    return home, bundle, events


@torch.no_grad()
def test_every_weight_is_trained_and_the_bundle_is_a_model(
    made: Made, tiny_base: BaseModel
) -> None:
    home, bundle, events = made
    folder = open_model(Home(home).bundles, bundle)
    manifest = read_manifest(folder)
    assert is_model(manifest)
    assert manifest["base_digest"] == tiny_base.digest
    assert manifest["recipe"]["adapter"]["kind"] == "full"
    before, after = (
        dict(AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32).named_parameters())
        for each in (tiny_base.folder, folder)
    )
    assert before.keys() == after.keys()
    moved = {name for name, each in after.items() if (each - before[name]).abs().max() > 0}
    assert moved == after.keys()
    steps = [event for event in of_type(events, StepDone) if event.stage == "sft"]
    assert manifest["rows"].keys() == {"pretrain", "sft"}
    assert steps[-1].loss < steps[0].loss


def test_the_plan_was_told_before_and_counts_sixteen_bytes_a_weight(
    made: Made, tiny_base: BaseModel
) -> None:
    (plan,) = of_type(made[2], MemoryPlanned)
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
    parts = {
        part.name: part.nbytes
        for part in training_parts(
            shape_of(str(tiny_base.folder)), Load(64, whole=True, device="cpu", checkpointing=False)
        )
    }
    weights = sum(parts[name] for name in ("weights", "gradients", "optimizer"))
    assert weights == 16 * model.num_parameters()
    assert plan.bytes["weights"] == parts["weights"]


def test_a_run_for_which_the_memory_does_not_suffice_is_refused_before_it_begins(
    tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = SimpleNamespace(available=1 << 20, total=1 << 22)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    with pytest.raises(ModelUnavailable, match="training alone does not fit"):
        preparation.prepare(tmp_path, tiny_base.folder, WHOLE, lambda event: None)


def test_an_engine_of_another_model_refuses_it_and_an_adapter_is_no_model(
    made: Made, tiny_base: BaseModel
) -> None:
    home, bundle, _ = made
    with pytest.raises(InvalidBundle, match="start the server with --model and this id"):
        open_bundle(Home(home).bundles, bundle, tiny_base)
    adapter = make_bundle(Home(home).bundles, tiny_base, seed=9)
    with pytest.raises(InvalidBundle, match="it is an adapter"):
        open_model(Home(home).bundles, adapter)


def test_an_export_is_a_copy_that_a_server_takes_as_a_folder(
    made: Made, tiny_base: BaseModel, tmp_path: Path
) -> None:
    home, bundle, _ = made
    export_release(tiny_base, Home(home).bundles, bundle, tmp_path / "model")
    copied = resolve(str(tmp_path / "model"), tmp_path / "cache")
    own = resolve(str(open_model(Home(home).bundles, bundle)), tmp_path / "cache")
    assert copied.digest == own.digest
    assert not (tmp_path / "model" / "recipe.json").exists()


def test_what_full_fine_tuning_cannot_do_is_refused_with_the_recipe() -> None:
    for method in ("dpo", "kto", "orpo"):
        with pytest.raises(InvalidInput, match=rf"{method}\.epochs needs adapter\.kind"):
            recipe_from_dict({"adapter": {"kind": "full"}, method: {"epochs": 1}})
    with pytest.raises(InvalidInput, match="needs weights: dense"):
        recipe_from_dict({"adapter": {"kind": "full"}, "dpo": {"epochs": 0}, "weights": "int8"})
    assert list(read_recipe("full").stages) == ["sft"]
