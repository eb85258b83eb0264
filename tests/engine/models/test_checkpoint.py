"""Folders of safetensors: single files, shards, and everything that is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.errors import ModelUnavailable
from engine.models.catalogue import BaseModel
from engine.models.checkpoint import FolderCheckpoint, open_checkpoint


def write_folder(folder: Path, shards: Mapping[str, Mapping[str, Tensor]], index: bool) -> Path:
    """A checkpoint of these shards, with or without their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for name, tensors in shards.items():
        save_file(dict(tensors), folder / name)
    if index:
        write_index(folder, {name: shard for shard, held in shards.items() for name in held})
    return folder


def write_index(folder: Path, weight_map: object) -> None:
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


SHARDS = {
    FIRST: {"a": torch.arange(6, dtype=torch.bfloat16).view(2, 3)},
    SECOND: {"b": torch.tensor([1.5]), "c": torch.tensor([7], dtype=torch.float16)},
}


class TestFolder:
    def test_a_single_file_as_transformers_reads_it(self, tiny_base: BaseModel) -> None:
        checkpoint = open_checkpoint(tiny_base.folder)
        state = AutoModelForCausalLM.from_pretrained(tiny_base.folder).state_dict()
        assert checkpoint.names == state.keys()
        assert all(torch.equal(checkpoint.tensor(name), state[name]) for name in state)
        assert checkpoint.config["num_hidden_layers"] == 2

    def test_shards_as_transformers_writes_them(self, tiny_base: BaseModel, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
        model.save_pretrained(tmp_path, max_shard_size="30KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        checkpoint, whole = FolderCheckpoint(tmp_path), FolderCheckpoint(tiny_base.folder)
        assert checkpoint.names == whole.names
        assert all(torch.equal(checkpoint.tensor(n), whole.tensor(n)) for n in whole.names)

    @pytest.mark.parametrize("index", [True, False])
    def test_shards_with_and_without_an_index(self, tmp_path: Path, index: bool) -> None:
        checkpoint = FolderCheckpoint(write_folder(tmp_path, SHARDS, index))
        assert checkpoint.names == {"a", "b", "c"}
        for tensors in SHARDS.values():
            for name, tensor in tensors.items():
                assert checkpoint.tensor(name).dtype == tensor.dtype
                assert torch.equal(checkpoint.tensor(name), tensor)
                assert checkpoint.blocks(name) is None

    def test_the_index_says_which_files_count(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, SHARDS, index=True)
        save_file({"a": torch.zeros(1)}, folder / "consolidated.safetensors")
        assert torch.equal(FolderCheckpoint(folder).tensor("a"), SHARDS[FIRST]["a"])

    def test_a_single_file_comes_before_the_index(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, SHARDS, index=True)
        save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
        assert FolderCheckpoint(folder).names == {"a"}

    def test_only_what_is_asked_for_is_read(self, tmp_path: Path) -> None:
        """A file of 1 GiB, nearly all of it a hole: reading it would show in the memory held."""
        size = 1 << 30
        header = json.dumps(
            {
                "small": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "huge": {"dtype": "U8", "shape": [size], "data_offsets": [4, 4 + size]},
            }
        ).encode()
        head = struct.pack("<Q", len(header)) + header + struct.pack("<2e", 0.0, 1.0)
        folder = write_folder(tmp_path, {}, index=False)
        with (folder / "model.safetensors").open("wb") as file:
            file.write(head)
            file.truncate(len(head) + size)
        before = psutil.Process().memory_info().rss
        assert FolderCheckpoint(folder).tensor("small").shape == (1,)
        assert psutil.Process().memory_info().rss - before < 64 << 20

    def test_a_tensor_it_does_not_hold_is_named(self, tmp_path: Path) -> None:
        checkpoint = FolderCheckpoint(write_folder(tmp_path, SHARDS, index=True))
        for read in (checkpoint.tensor, checkpoint.blocks):
            with pytest.raises(ModelUnavailable, match="has no tensor 'd'"):
                read("d")


class TestSpoiltFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_folder(tmp_path / "model", SHARDS, index=True)

    def test_every_missing_shard_is_named(self, folder: Path) -> None:
        for shard in (FIRST, SECOND):
            (folder / shard).unlink()
        with pytest.raises(ModelUnavailable, match=f"{FIRST}' is missing; '{SECOND}' is missing"):
            FolderCheckpoint(folder)

    @pytest.mark.parametrize("index", [True, False])
    def test_a_truncated_shard_is_named(self, folder: Path, index: bool) -> None:
        if not index:
            (folder / "model.safetensors.index.json").unlink()
        whole = (folder / SECOND).read_bytes()
        for length in (0, 5, 40, len(whole) - 1):
            (folder / SECOND).write_bytes(whole[:length])
            with pytest.raises(ModelUnavailable, match=f"'{SECOND}' is truncated or corrupt"):
                FolderCheckpoint(folder)

    @pytest.mark.parametrize("spoilt", [b"<html>", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
    def test_something_else_in_place_of_a_shard_is_refused(
        self, folder: Path, spoilt: bytes
    ) -> None:
        (folder / FIRST).write_bytes(spoilt)
        with pytest.raises(ModelUnavailable, match=f"'{FIRST}' is truncated or corrupt"):
            FolderCheckpoint(folder)

    def test_a_tensor_that_is_not_where_the_index_says_is_named(self, folder: Path) -> None:
        write_index(folder, {"a": FIRST, "b": FIRST})
        with pytest.raises(ModelUnavailable, match=f"'b' is not in '{FIRST}'"):
            FolderCheckpoint(folder)

    @pytest.mark.parametrize("weight_map", [None, [], {}, {"a": 1}, {"a": None}])
    def test_an_index_that_makes_no_sense_is_refused(
        self, folder: Path, weight_map: object
    ) -> None:
        write_index(folder, weight_map)
        with pytest.raises(ModelUnavailable, match=r"index\.json: .* weight_map"):
            FolderCheckpoint(folder)

    @pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "null"])
    @pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
    def test_broken_json_is_refused(self, folder: Path, file: str, text: str) -> None:
        (folder / file).write_text(text)
        with pytest.raises(ModelUnavailable, match=f"cannot read .*{file}"):
            FolderCheckpoint(folder)

    def test_without_a_configuration_neither_kind_opens(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        for gguf in (None, folder / "weights.gguf"):
            with pytest.raises(ModelUnavailable, match=r"config\.json"):
                open_checkpoint(folder, gguf)

    def test_pickled_weights_are_refused(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, {}, index=False)
        torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
        with pytest.raises(ModelUnavailable, match=r"no \.safetensors weights \(pickled weights"):
            FolderCheckpoint(folder)

    def test_pickled_weights_in_an_index_are_refused(self, folder: Path) -> None:
        torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
        write_index(folder, {"a": "pytorch_model.bin"})
        with pytest.raises(ModelUnavailable, match=r"'pytorch_model\.bin' is truncated or corrupt"):
            FolderCheckpoint(folder)

    def test_two_files_with_the_same_tensor_are_refused(self, folder: Path) -> None:
        (folder / "model.safetensors.index.json").unlink()
        shutil.copy(folder / FIRST, folder / "copy.safetensors")
        with pytest.raises(ModelUnavailable, match=r"'a' is in several of copy\.safetensors, mod"):
            FolderCheckpoint(folder)


class TestEscapes:
    """A real, readable shard lies outside: only where it lies is wrong."""

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
        return tmp_path / "outside.safetensors"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_folder(tmp_path / "model", {}, index=False)

    def refused(self, folder: Path) -> None:
        with pytest.raises(ModelUnavailable, match="leads out of the folder"):
            FolderCheckpoint(folder)

    @pytest.mark.parametrize(
        "name", ["../outside.safetensors", "sub/../../outside.safetensors", "..", "."]
    )
    def test_a_path_out_of_the_folder(self, folder: Path, outside: Path, name: str) -> None:
        write_index(folder, {"a": name})
        self.refused(folder)

    def test_an_absolute_path(self, folder: Path, outside: Path) -> None:
        write_index(folder, {"a": str(outside)})
        self.refused(folder)

    @pytest.mark.parametrize("index", [True, False])
    def test_a_link_out_of_the_folder(self, folder: Path, outside: Path, index: bool) -> None:
        (folder / "shard.safetensors").symlink_to(outside)
        if index:
            write_index(folder, {"a": "shard.safetensors"})
        self.refused(folder)

    @pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "loop.safetensors"])
    def test_a_name_that_is_no_file(self, folder: Path, name: str) -> None:
        (folder / "loop.safetensors").symlink_to("loop.safetensors")
        write_index(folder, {"a": name})
        with pytest.raises(ModelUnavailable, match="cannot read the model"):
            FolderCheckpoint(folder)

    def test_a_folder_reached_through_a_link_is_fine(self, folder: Path, tmp_path: Path) -> None:
        save_file({"a": torch.ones(1)}, folder / "model.safetensors")
        (tmp_path / "link").symlink_to(folder)
        assert FolderCheckpoint(tmp_path / "link").tensor("a").item() == 1

    def test_a_relative_folder_is_fine(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_file({"a": torch.ones(1)}, folder / "model.safetensors")
        monkeypatch.chdir(tmp_path)
        assert FolderCheckpoint(Path("model")).names == {"a"}


class TestHubCache:
    """`models--owner--name/snapshots/<revision>/file` is a link into a `blobs` folder."""

    @pytest.fixture
    def snapshot(self, tmp_path: Path) -> Path:
        return write_folder(tmp_path / "models--o--n" / "snapshots" / "0a1b", {}, index=False)

    @pytest.mark.parametrize("store", ["models--o--n/blobs", "blobs"])
    def test_links_into_the_stores_are_followed(
        self, snapshot: Path, tmp_path: Path, store: str
    ) -> None:
        (tmp_path / store).mkdir()
        save_file(one_weight(), tmp_path / store / "blob")
        link = snapshot / "model.safetensors"
        link.symlink_to(os.path.relpath(tmp_path / store / "blob", snapshot))
        assert torch.equal(FolderCheckpoint(snapshot).tensor("a"), load_file(link)["a"])

    def test_links_elsewhere_are_refused(self, snapshot: Path, tmp_path: Path) -> None:
        save_file(one_weight(), tmp_path / "secret")
        (snapshot / "model.safetensors").symlink_to(tmp_path / "secret")
        with pytest.raises(ModelUnavailable, match="leads out of the folder"):
            FolderCheckpoint(snapshot)

    def test_an_index_may_not_name_the_store_itself(self, snapshot: Path) -> None:
        store = snapshot.parent.parent / "blobs"
        store.mkdir()
        save_file(one_weight(), store / "blob")
        write_index(snapshot, {"a": "../../blobs/blob"})
        with pytest.raises(ModelUnavailable, match="leads out of the folder"):
            FolderCheckpoint(snapshot)


def one_weight() -> dict[str, Tensor]:
    return {"a": torch.ones(1)}
