"""An adapter that other software trained becomes a release, and only the gate makes it live."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from deploy.releases.importing import ImportedRelease, import_adapter
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from engine.adapters.bundle import open_bundle, origin_of
from engine.errors import Conflict, InvalidBundle
from engine.models.catalogue import BaseModel, resolve
from engine.storage import list_digests
from tests.engine.adapters.test_prefix_encoder import write_checkpoint as write_prefix_checkpoint
from tests.helpers import adapter_config, random_tensors
from tests.support.chatglm_models import write_tiny_chatglm


@pytest.fixture
def theirs(tmp_path: Path, tiny_base: BaseModel) -> Path:
    """A folder as LLaMA-Factory leaves it: the adapter among much else."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(tiny_base)))
    save_file(random_tensors(tiny_base, 0, 0.3), folder / "adapter_model.safetensors")
    for name in ("README.md", "training_args.bin", "trainer_log.jsonl", "tokenizer_config.json"):
        (folder / name).write_text("theirs")
    return folder


def test_it_is_a_release_that_waits_for_the_gate(
    theirs: Path, tiny_base: BaseModel, bundles: Path, registry: Registry
) -> None:
    found = import_adapter(theirs, tiny_base, bundles, registry)
    assert found == ImportedRelease(found.bundle, tiny_base.name, "not judged")
    opened = open_bundle(bundles, found.bundle, tiny_base)
    assert origin_of(opened.manifest) == "imported"
    assert opened.manifest["snapshot"] is None
    assert sorted(opened.manifest["files"]) == ["adapter_config.json", "adapter_model.safetensors"]
    (release,) = registry.list()
    assert (release.bundle, release.origin) == (found.bundle, "imported")
    releases = Releases(registry, bundles, tiny_base)
    assert releases.waiting() is None
    with pytest.raises(Conflict, match="the gate's verdict is 'not judged'"):
        releases.promote(found.bundle)
    assert releases.promote(found.bundle, force=True, reason="a gift").bundle == found.bundle
    assert releases.rollback().bundle is None


def test_the_same_files_are_the_same_release_with_its_verdict(
    theirs: Path, tiny_base: BaseModel, bundles: Path, registry: Registry
) -> None:
    first = import_adapter(theirs, tiny_base, bundles, registry)
    registry.add(first.bundle, {"verdict": "better", "origin": "imported"})
    again = import_adapter(theirs, tiny_base, bundles, registry)
    assert again == ImportedRelease(first.bundle, tiny_base.name, "better")
    assert registry.get(first.bundle).report["verdict"] == "better"
    assert list_digests(bundles) == [first.bundle]


def test_an_adapter_that_lies_about_its_base_leaves_nothing_behind(
    theirs: Path, tiny_base: BaseModel, bundles: Path, registry: Registry
) -> None:
    config = adapter_config(tiny_base) | {"base_model_name_or_path": "owner/another-7b"}
    (theirs / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidBundle, match="owner/another-7b"):
        import_adapter(theirs, tiny_base, bundles, registry)
    assert not bundles.exists()
    assert registry.list() == []
    taken = import_adapter(theirs, tiny_base, bundles, registry, trust_base=True)
    assert taken.claimed_base == "owner/another-7b"


def test_a_checkpoint_of_p_tuning_v2_is_a_release_too(
    tmp_path: Path, bundles: Path, registry: Registry
) -> None:
    write_tiny_chatglm(tmp_path / "model", "chatglm2")
    base = resolve(str(tmp_path / "model"), tmp_path / "cache")
    write_prefix_checkpoint(tmp_path / "theirs", "chatglm2", projected=True)
    found = import_adapter(tmp_path / "theirs", base, bundles, registry, trust_base=True)
    assert open_bundle(bundles, found.bundle, base).manifest["origin"] == "imported"
    assert [release.bundle for release in registry.list()] == [found.bundle]
