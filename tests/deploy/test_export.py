"""A merged export is the base model with the adapter in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from deploy.export.formats import export_release
from engine.errors import InvalidBundle, InvalidInput
from engine.models.catalogue import BaseModel
from tests.helpers import make_bundle


@torch.no_grad()
def test_a_merged_model_predicts_what_base_and_adapter_do_together(
    tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(bundles, tiny_base)
    export_release(tiny_base, bundles, bundle, tmp_path / "merged")
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "merged").encode("Say hello.")])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    without = base(ids).logits
    adapted = PeftModel.from_pretrained(base, bundles / bundle.removeprefix("sha256:"))(ids).logits
    found = merged(ids).logits
    # bf16 keeps 8 bits: the rounding is small beside what the adapter changes
    assert (found - adapted).norm() < 0.05 * (without - adapted).norm()


def test_an_export_never_overwrites_and_never_merges_a_bad_bundle(
    tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(bundles, tiny_base, manifest={"base_digest": "sha256:other"})
    (tmp_path / "mine").mkdir()
    with pytest.raises(InvalidInput, match="exists already"):
        export_release(tiny_base, bundles, bundle, tmp_path / "mine")
    with pytest.raises(InvalidBundle, match="another base model"):
        export_release(tiny_base, bundles, bundle, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
