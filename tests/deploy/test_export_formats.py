"""Exports in other formats: what each holds, what it refuses, and the card beside it."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from deploy.export import merged
from deploy.export.facts import read_facts
from deploy.export.formats import RELEASE_FORMATS, export_release
from deploy.releases.registry import Registry
from engine.errors import Conflict, InvalidInput, StorageFull
from engine.models.catalogue import BaseModel, resolve
from engine.storage import folder_of
from tests.helpers import make_bundle
from tests.support.chatglm_models import write_tiny_chatglm
from tests.support.pairs import snapshot_of
from tests.support.soft_prompts import make_soft_bundle

REPORT = {
    "verdict": "better",
    "reason": "gain +0.20 [+0.10, +0.30] lies above 0",
    "pairs": 40,
    "conversations": 30,
    "candidate_accuracy": 0.8,
    "incumbent_accuracy": 0.6,
    "longer_wins_accuracy": 0.55,
    "gain": {"estimate": 0.2, "low": 0.1, "high": 0.3},
    "guards": [{"name": "drift", "harm": {"estimate": 0.01}, "refused": False}],
}


@pytest.fixture(scope="module")
def chatglm(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    root = tmp_path_factory.mktemp("chatglm")
    write_tiny_chatglm(root / "model", "chatglm3")
    return resolve(str(root / "model"), root / "cache")


@torch.no_grad()
def test_peft_reads_the_adapter_and_finds_the_base_model_by_its_published_name(
    tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    named = replace(tiny_base, name="some/where/SmolLM2-135M-Instruct")
    bundle = make_bundle(bundles, tiny_base)
    export_release(named, bundles, bundle, tmp_path / "peft", "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    ids = torch.tensor([[5, 6, 7, 8]])
    logits = [
        PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32), str(folder)
        )(ids).logits
        for folder in (tmp_path / "peft", folder_of(bundles, bundle))
    ]
    assert torch.equal(*logits)


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "DoRA as a LoRA file": (
        {"config": {"use_dora": True}, "manifest": {"export_only": "DoRA"}},
        "gguf-lora",
        "DoRA rescales whole rows",
    ),
    "LLaMA in ChatGLM's layout": ({}, "chatglm", "type is 'llama'"),
    "an unknown format": ({}, "onnx", "the formats are peft, merged, gguf, gguf-lora"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_format_cannot_hold_is_refused_by_name_and_nothing_is_written(
    name: str, tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    options, wanted, reason = REFUSALS[name]
    bundle = make_bundle(bundles, tiny_base, **options)
    with pytest.raises(InvalidInput, match=reason):
        export_release(tiny_base, bundles, bundle, tmp_path / "out", wanted)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("name", ["merged", "gguf", "gguf-lora", "ollama"])
def test_virtual_tokens_leave_in_pefts_format_alone(
    name: str, tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    bundle = make_soft_bundle(bundles, tiny_base, "prompt")
    with pytest.raises(InvalidInput, match="virtual tokens"):
        export_release(tiny_base, bundles, bundle, tmp_path / name, name)
    export_release(tiny_base, bundles, bundle, tmp_path / "peft", "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["peft_type"] == "PROMPT_TUNING"


@pytest.mark.parametrize("name", ["peft", "gguf-lora"])
def test_a_model_without_an_adapter_is_no_adapter(
    name: str, tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="a base model is no adapter"):
        export_release(tiny_base, bundles, None, tmp_path / "out", name)


@pytest.mark.parametrize(("name", "wanted"), [("gguf", "q5_k"), ("merged", "q8_0")])
def test_a_quantization_that_a_format_does_not_have_is_refused(
    name: str, wanted: str, tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(bundles, tiny_base)
    with pytest.raises(InvalidInput, match=wanted):
        export_release(tiny_base, bundles, bundle, tmp_path / "out", name, quantization=wanted)


def test_chatglm_leaves_in_its_published_layout_with_the_adapter_beside(
    chatglm: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(bundles, chatglm)
    export_release(chatglm, bundles, bundle, tmp_path / "out", "chatglm")
    published = load_file(chatglm.folder / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == published.keys()
    for name in ("config.json", "tokenizer_config.json", "tokenizer.model"):
        assert (tmp_path / "out" / name).read_bytes() == (chatglm.folder / name).read_bytes()
    module = "transformer.encoder.layers.0.self_attention.query_key_value"
    adapter = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
    expected = published[f"{module}.weight"].float() + 2 * b @ a  # alpha / rank = 8 / 4
    torch.testing.assert_close(found[f"{module}.weight"].float(), expected, rtol=2**-8, atol=1e-6)
    assert resolve(str(tmp_path / "out"), tmp_path / "cache").digest != chatglm.digest


def test_chatglm_has_no_gguf(chatglm: BaseModel, bundles: Path, tmp_path: Path) -> None:
    bundle = make_bundle(bundles, chatglm)
    with pytest.raises(InvalidInput, match="type is 'chatglm'"):
        export_release(chatglm, bundles, bundle, tmp_path / "out", "gguf")


def test_the_card_tells_the_data_the_evaluation_and_the_licence(
    tiny_base: BaseModel, bundles: Path, registry: Registry, tmp_path: Path
) -> None:
    snapshot = snapshot_of(tmp_path, 12)
    bundle = make_bundle(bundles, tiny_base, manifest={"snapshot": snapshot})
    registry.add(bundle, REPORT)
    facts = read_facts(registry, bundles, tmp_path / "snapshots", bundle)
    named = replace(tiny_base, name="SmolLM2-135M-Instruct")
    export_release(named, bundles, bundle, tmp_path / "out", "merged", facts=facts)
    _, front, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["burnish"],
    }
    assert facts.snapshot is not None
    counts = facts.snapshot["counts"]
    row = " | ".join(str(counts[split]["pairs"]) for split in ("train", "heldout", "gold"))
    assert f"| pairs | {row} |" in body
    assert sum(counts[split]["pairs"] for split in counts) == 12
    assert "**better**. gain +0.20 [+0.10, +0.30] lies above 0" in body
    assert "| this release ranks held-out pairs rightly | 0.80 |" in body
    assert "| drift | +0.01 | no |" in body
    assert "`apache-2.0`" in body
    assert "Not known" in body
    assert "Say word" not in body, "texts of people are not told"


def test_what_is_not_known_is_said(tiny_base: BaseModel, bundles: Path, tmp_path: Path) -> None:
    bundle = make_bundle(bundles, tiny_base, manifest={"origin": "imported"})
    export_release(tiny_base, bundles, bundle, tmp_path / "out", "peft")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license:" not in card
    assert "its data is not known here" in card
    assert "The gate has not judged it" in card
    assert "The licence of the base model is not known here" in card


def test_a_release_that_was_withdrawn_does_not_leave(
    tiny_base: BaseModel, bundles: Path, registry: Registry, tmp_path: Path
) -> None:
    bundle = make_bundle(bundles, tiny_base)
    registry.add(bundle, REPORT)
    registry.taint([bundle], "somebody was forgotten")
    with pytest.raises(Conflict, match="somebody was forgotten"):
        read_facts(registry, bundles, tmp_path / "snapshots", bundle)


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("name", sorted(RELEASE_FORMATS))
@pytest.mark.parametrize("error", FULL, ids=["system", "safetensors"])
def test_a_full_disk_is_called_so_and_leaves_nothing(
    name: str,
    error: Exception,
    tiny_base: BaseModel,
    chatglm: BaseModel,
    bundles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = chatglm if name == "chatglm" else tiny_base
    bundle = make_bundle(bundles, base)
    before = sorted(tmp_path.iterdir())

    def fail(_release: object, folder: Path, _quantization: str) -> None:
        (folder / "half").write_bytes(b"half")
        raise error

    monkeypatch.setattr(RELEASE_FORMATS[name], "write", fail)
    with pytest.raises(StorageFull, match="No space left on device"):
        export_release(base, bundles, bundle, tmp_path / "out", name)
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_that_was_killed_does_not_hinder_the_next(
    tiny_base: BaseModel, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(bundles, tiny_base)
    with monkeypatch.context() as patch:
        patch.setattr("engine.storage.shutil.rmtree", lambda *_, **__: None)  # as after kill -9
        patch.setattr(merged, "_write_tokenizer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_release(tiny_base, bundles, bundle, tmp_path / "out")
    assert [path.name.startswith(".tmp-") for path in tmp_path.glob("*out")] == [True]
    export_release(tiny_base, bundles, bundle, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
