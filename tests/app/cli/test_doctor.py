"""`burnish doctor` and a start find the same, in the same words, before anything is converted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app.doctor import inspect_machine
from app.service import Service
from app.settings import load_settings
from app.workspace import Workspace
from engine.errors import ModelUnavailable
from engine.models.catalogue import BaseModel
from tests.engine.models.test_gguf import write_gguf


def without_template(model: Path) -> Path:
    (model / "chat_template.jinja").unlink()
    return model


def with_few_embeddings(model: Path) -> Path:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 40}))
    return model


def with_half_the_weights(model: Path) -> Path:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return model


def as_gguf_with_an_unknown_setting(model: Path) -> Path:
    return write_gguf(model / "m.gguf", {})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_template, "it has no chat template"),
        (with_few_embeddings, "knows tokens below 40 alone"),
        (with_half_the_weights, "is truncated or corrupt"),
        (as_gguf_with_an_unknown_setting, "it has no setting context_length"),
    ],
)
def test_what_a_start_refuses_the_doctor_names(
    tmp_path: Path, tiny_base: BaseModel, spoil: object, reason: str
) -> None:
    assert callable(spoil)
    model = spoil(Path(shutil.copytree(tiny_base.folder, tmp_path / "model")))
    cache = tmp_path / "models"
    settings = load_settings(home=tmp_path / "home", model_cache=cache, model=str(model))
    workspace = Workspace(settings)
    [problem] = inspect_machine(workspace)["problems"]
    with pytest.raises(ModelUnavailable) as refused:
        Service(workspace)
    workspace.close()
    assert problem == str(refused.value)
    assert reason in problem
    assert not [*cache.rglob("*.safetensors")]
