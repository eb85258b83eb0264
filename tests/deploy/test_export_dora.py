"""An adapter that cannot be served per row leaves as dense weights that any software reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from deploy.export.formats import export_release
from engine.errors import InvalidBundle, InvalidInput
from engine.models.catalogue import BaseModel, resolve
from engine.storage import folder_of
from tests.helpers import ALPHA, RANK, make_bundle
from tests.support.pairs import snapshot_of
from tests.support.runs import QUICK, trained
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe_sections import AdapterRecipe

MODULE = "model.layers.0.mlp.up_proj"
SCALE = ALPHA / RANK
STRONG = SftRecipe(epochs=2, learning_rate=0.05)  # so that the change is far above bf16's rounding
DORA = AdapterRecipe(rank=2, alpha=4, weight_decomposed=True)


@dataclass(frozen=True)
class Exported:
    home: Path
    bundle: str
    target: Path

    def tensor(self, name: str) -> Tensor:
        return load_file(self.target / "model.safetensors")[name].float()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Exported:
    home = tmp_path_factory.mktemp("dora")
    recipe = replace(QUICK, adapter=DORA, sft=STRONG, dpo=DpoRecipe(epochs=0))
    bundle, _ = trained(home, tiny_base, snapshot_of(home, 6), recipe)
    export_release(tiny_base, home / "bundles", bundle, home / "merged")
    return Exported(home, bundle, home / "merged")


def test_the_weights_are_those_of_the_paper(exported: Exported, tiny_base: BaseModel) -> None:
    """Liu et al. 2024, eq. 5: magnitude times direction, a row of the weight at a time.

    (peft's weights are the paper's, transposed; the scale is alpha / rank = 2.)
    """
    adapter = load_file(
        folder_of(exported.home / "bundles", exported.bundle) / "adapter_model.safetensors"
    )
    a, b, magnitude = (
        adapter[f"base_model.model.{MODULE}.{name}"]
        for name in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
    )
    base = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    weight = base.get_submodule(MODULE).weight.detach()
    direction = weight + 2 * b @ a
    expected = magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
    found = exported.tensor(f"{MODULE}.weight")
    rounding = 2**-8 * expected.abs().max()
    assert (found - expected).abs().max() < rounding
    assert (found - weight).abs().max() > 4 * rounding


def test_it_is_a_base_model_like_any_other(
    exported: Exported, tiny_base: BaseModel, tmp_path: Path
) -> None:
    assert resolve(str(exported.target), tmp_path).digest != tiny_base.digest
    model = AutoModelForCausalLM.from_pretrained(exported.target, use_safetensors=True)
    assert (model.dtype, getattr(model.config, "quantization_config", None)) == (
        torch.bfloat16,
        None,
    )
    theirs, ours = (AutoTokenizer.from_pretrained(f) for f in (exported.target, tiny_base.folder))
    assert theirs.get_vocab() == ours.get_vocab()
    assert theirs.chat_template == ours.chat_template
    assert not list(exported.home.glob("*.unfinished"))


def test_a_plain_lora_bundle_is_merged_too(tiny_base: BaseModel, tmp_path: Path) -> None:
    """Hu et al. 2021, eq. 3."""
    bundle = make_bundle(tmp_path / "bundles", tiny_base)
    export_release(tiny_base, tmp_path / "bundles", bundle, tmp_path / "merged")
    adapter = load_file(folder_of(tmp_path / "bundles", bundle) / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.{MODULE}.lora_{side}.weight"] for side in "AB")
    base = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    expected = base.get_submodule(MODULE).weight.detach() + SCALE * b @ a
    found = load_file(tmp_path / "merged" / "model.safetensors")[f"{MODULE}.weight"].float()
    assert torch.allclose(found, expected, rtol=2**-8, atol=1e-6)


def test_an_existing_target_is_not_touched(exported: Exported, tiny_base: BaseModel) -> None:
    before = sorted(exported.target.iterdir())
    with pytest.raises(InvalidInput, match="exists already"):
        export_release(tiny_base, exported.home / "bundles", exported.bundle, exported.target)
    assert sorted(exported.target.iterdir()) == before


def test_a_bundle_of_another_base_is_refused(
    exported: Exported, tiny_base: BaseModel, tmp_path: Path
) -> None:
    other = replace(tiny_base, digest="sha256:" + "0" * 64)
    with pytest.raises(InvalidBundle, match="another base model"):
        export_release(other, exported.home / "bundles", exported.bundle, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_damaged_bundle_is_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundles", tiny_base, manifest={"export_only": "why"})
    weights = folder_of(tmp_path / "bundles", bundle) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(InvalidBundle):
        export_release(tiny_base, tmp_path / "bundles", bundle, tmp_path / "merged")


def test_weights_that_are_not_numbers_are_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    bundle = make_bundle(
        tmp_path / "bundles",
        tiny_base,
        manifest={"export_only": "why"},
        doctor=lambda tensors: {name: t * float("nan") for name, t in tensors.items()},
    )
    with pytest.raises(InvalidBundle, match="NaN"):
        export_release(tiny_base, tmp_path / "bundles", bundle, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == [tmp_path / "bundles"]


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "IA3"])
def test_what_cannot_be_merged_is_refused(kind: str, tiny_base: BaseModel, tmp_path: Path) -> None:
    bundle = make_bundle(
        tmp_path / "bundles", tiny_base, manifest={"export_only": "why"}, config={"peft_type": kind}
    )
    with pytest.raises(InvalidBundle, match="only LoRA and DoRA"):
        export_release(tiny_base, tmp_path / "bundles", bundle, tmp_path / "merged")
