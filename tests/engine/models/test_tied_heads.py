"""One rule for an output head that the configuration ties to the embedding: transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from deploy.export.formats import export_release
from engine.hardware import detect
from engine.kernels.portable import PortableKernels
from engine.models.catalogue import BaseModel, resolve
from engine.models.checkpoint import FolderCheckpoint
from engine.models.families import architecture_of
from engine.models.kernel_selection import KernelChoice
from engine.models.memory import matrix_bytes
from tests.helpers import make_bundle
from tests.support.decoders import Runner
from tests.support.tiny_model import write_tiny_model
from tuning.quantized import load_base

IDS = [5, 300, 17, 42, 200, 8]
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


class Tied(NamedTuple):
    base: BaseModel
    own_head: bool


@pytest.fixture(params=["own head", "no head", "the same head", "the head alone"])
def tied(request: pytest.FixtureRequest, tmp_path: Path) -> Tied:
    """A checkpoint that says tied, and holds what the parameter says."""
    folder = tmp_path / "model"
    write_tiny_model(folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true')
    )
    tensors = load_file(folder / "model.safetensors")
    if request.param == "no head":
        del tensors[HEAD]
    elif request.param == "the same head":
        tensors[HEAD] = tensors[EMBEDDING].clone()
    elif request.param == "the head alone":
        del tensors[EMBEDDING]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Tied(resolve(str(folder), tmp_path / "cache"), request.param == "own head")


def by_transformers(model: torch.nn.Module) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([IDS])).logits[0]
    return logits


def test_serving_tuning_and_export_agree(tied: Tied, tmp_path: Path) -> None:
    folder = tied.base.folder
    expected = by_transformers(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    served = Runner.of(folder, KernelChoice(PortableKernels(), "asked for")).logits(IDS)
    torch.testing.assert_close(served, expected, rtol=0, atol=1e-4)
    tuned = by_transformers(load_base(folder, "dense", torch.float32, "cpu"))
    torch.testing.assert_close(tuned, expected, rtol=0, atol=1e-4)

    bundle = make_bundle(tmp_path / "bundles", tied.base, scale=1e-6)
    export_release(tied.base, tmp_path / "bundles", bundle, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert merged.config.tie_word_embeddings != tied.own_head  # software without the rule agrees
    torch.testing.assert_close(by_transformers(merged), expected, rtol=0, atol=0.1)  # bfloat16


def test_the_memory_foretold_is_of_the_matrices_that_are_loaded(tied: Tied) -> None:
    folder = tied.base.folder
    tensors = load_file(folder / "model.safetensors")
    vocabulary = tensors.get(EMBEDDING, tensors.get(HEAD))
    assert vocabulary is not None
    weights = sum(tensor.numel() for name, tensor in tensors.items() if "_proj." in name)
    weights += vocabulary.numel() * (2 if tied.own_head else 1)
    foretold = matrix_bytes(FolderCheckpoint(folder), architecture_of(folder), "none")
    assert foretold == weights * detect().dtype.itemsize
