"""What a model will take in memory, before it is loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from engine.errors import ModelUnavailable
from engine.fast import FastEngine
from engine.models.catalogue import BaseModel
from engine.models.checkpoint import FolderCheckpoint
from engine.models.families import architecture_of
from engine.models.memory import matrix_bytes, require_memory
from engine.quantization import Quantization


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("model", ["tiny_base", pytest.param("smollm", marks=pytest.mark.slow)])
def test_the_bytes_foretold_are_those_held(
    request: pytest.FixtureRequest, kernel_cache: Path, model: str, quantization: Quantization
) -> None:
    base: BaseModel = request.getfixturevalue(model)
    engine = FastEngine(base, kernel_cache=kernel_cache, quantization=quantization)
    folder = base.folder
    foretold = matrix_bytes(FolderCheckpoint(folder), architecture_of(folder), quantization)
    engine.close()
    # The vocabulary is padded to whole lanes of 8, which shows in the tiny model
    assert foretold == pytest.approx(
        engine.weight_bytes, rel=0.02 if model == "tiny_base" else 0.01
    )


def test_a_model_that_cannot_fit_is_refused_with_the_figures(
    smollm: BaseModel, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FolderCheckpoint(smollm.folder), architecture_of(smollm.folder)
    free = SimpleNamespace(available=130 * 2**20, total=2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    require_memory(*model, "int4")  # 1.3 x 92 MiB
    with pytest.raises(ModelUnavailable, match=r"0\.2 GiB as int8.* 0\.1 GiB are free.*int4"):
        require_memory(*model, "int8")
    with pytest.raises(ModelUnavailable, match="needs about"):
        FastEngine(smollm, kernel_cache=kernel_cache, quantization="none")
