"""A conversion in the cache is what its manifest says, or it is made anew and that is said."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config, Qwen3Config

from engine import storage
from engine.kernels.build import build
from engine.kernels.native import SOURCE, THREADS
from engine.models import conversion
from engine.models.catalogue import BaseModel, resolve
from engine.models.gguf import gguf_settings
from tests.support.decoders import randomize
from tests.support.gguf_files import SIZES, in_bfloat16, write_gguf_model

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "manifest.json",
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF file and a cache with its conversion."""
    root = tmp_path_factory.mktemp("converted")
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), dtype=torch.float32)
    randomize(model)
    file = write_gguf_model(root / "m.gguf", in_bfloat16(model))
    resolve(str(file), root / "cache")
    return file, root / "cache"


@pytest.fixture
def cached(converted: tuple[Path, Path], tmp_path: Path) -> tuple[str, Path, BaseModel]:
    """The file's name, a cache that a test may damage, and the sound model."""
    file, cache = converted
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    return str(file), copy, resolve(str(file), copy)


def flip_a_bit(path: Path) -> None:
    """Change one bit and set the clock back, as a careless repair would."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def forbid_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(conversion, "_convert", convert)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_noticed_and_made_anew(
    cached: tuple[str, Path, BaseModel],
    name: str,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file, cache, sound = cached
    damage(sound.folder / name)
    with caplog.at_level(logging.WARNING):
        assert resolve(file, cache) == sound  # above all, under the digest that bundles name
    said = [r.getMessage() for r in caplog.records if r.name == conversion.__name__]
    assert len(said) == 1 and "damaged" in said[0] and "converted anew" in said[0]


def test_a_sound_conversion_is_not_made_again(
    cached: tuple[str, Path, BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache, sound = cached
    forbid_conversion(monkeypatch)
    assert resolve(file, cache) == sound


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_to_is_used(
    cached: tuple[str, Path, BaseModel], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    file, cache, sound = cached
    forbid_conversion(monkeypatch)
    for memo in (cache / "digests").iterdir():  # of another machine, say: none fits
        memo.unlink()

    def refuse(path: Path, _: bytes) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(storage, "_write_synced", refuse)
    assert resolve(file, cache) == sound


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
def test_damaged_digest_memos_are_computed_anew(
    cached: tuple[str, Path, BaseModel],
    damage: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, cache, sound = cached
    forbid_conversion(monkeypatch)
    for memo in (cache / "digests").iterdir():
        damage(memo)
    assert resolve(file, cache) == sound


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
def test_a_damaged_index_leads_to_the_same_model(
    cached: tuple[str, Path, BaseModel], damage: Callable[[Path], None]
) -> None:
    file, cache, sound = cached
    for index in (cache / "converted").iterdir():
        damage(index)
    assert resolve(file, cache) == sound


def test_what_a_crash_left_is_removed(cached: tuple[str, Path, BaseModel]) -> None:
    file, cache, _ = cached
    (cache / ".tmp-conversion").mkdir()
    (cache / ".tmp-conversion" / "model.safetensors").write_bytes(b"half")
    (cache / "digests" / ".tmp-memo").write_bytes(b"half")
    resolve(file, cache)
    assert not [*cache.rglob(".tmp-*")]


def test_damaged_kernels_are_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = importlib.import_module("engine.kernels.build")  # not the function of that name
    monkeypatch.setattr(module, "NEEDED_INSTRUCTIONS", ())
    monkeypatch.setattr(module, "_run", lambda *a: Path(a[-1]).write_bytes(b"library"))
    library = build(tmp_path, SOURCE, THREADS)
    assert build(tmp_path, SOURCE, THREADS) == library
    truncate(library)
    with caplog.at_level(logging.WARNING):
        assert build(tmp_path, SOURCE, THREADS).read_bytes() == b"library"
    assert "were damaged; they are compiled anew" in caplog.text


FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_is_the_one_that_transformers_finds_by_itself(
    tmp_path: Path, family: str
) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES[family](**SIZES), dtype=torch.float32)
    file = write_gguf_model(tmp_path / "m.gguf", in_bfloat16(model))
    written = []
    for name, tokenizer in (
        ("ours", conversion._tokenizer(file, gguf_settings(file))),
        ("theirs", AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)),
    ):
        tokenizer.save_pretrained(tmp_path / name)
        written.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert "tokenizer.json" in written[0]
