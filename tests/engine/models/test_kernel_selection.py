"""Compiled kernels where they can be had, torch's elsewhere, and a reason either way."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from engine.kernels.native import NativeKernels
from engine.kernels.portable import PortableKernels
from engine.models.families import architecture_of
from engine.models.kernel_selection import KernelChoice, select_kernels
from engine.quantization.packed_cpu import NativeLinear
from tests.support.decoders import SIZES

compiling = importlib.import_module("engine.kernels.build")  # the package's `build` is a function


def assert_portable(choice: KernelChoice, *because: str) -> None:
    assert isinstance(choice.kernels, PortableKernels)
    assert choice.native is None
    for words in because:
        assert words in choice.reason


def test_a_processor_with_a_compiler_gets_compiled_kernels(
    native: NativeKernels, kernel_cache: Path
) -> None:
    choice = select_kernels("cpu", kernel_cache)
    assert choice.native is choice.kernels
    assert choice.reason == "compiled for this processor"


def test_kernels_are_compiled_once(
    native: NativeKernels, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert select_kernels("cpu", kernel_cache).native is not None


def test_without_a_compiler_torch_computes_and_the_reason_names_compilers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_processor", lambda: "flags : avx2 fma f16c")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert_portable(select_kernels("cpu", tmp_path), "no C++ compiler", "g++", "clang++")


def test_a_processor_that_lacks_instructions_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_processor", lambda: "flags : sse2 avx2 fma4")
    assert_portable(select_kernels("cpu", tmp_path), "lacks fma, f16c")


def test_a_processor_of_another_kind_gets_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_processor", lambda: "")
    assert_portable(select_kernels("cpu", tmp_path), "lacks avx2, fma, f16c")


def test_what_the_compiler_says_is_passed_on(
    native: NativeKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "cpu.cpp"
    source.write_text("this is no program;")
    monkeypatch.setattr("engine.models.kernel_selection.SOURCE", source)
    cache = tmp_path / "cache"
    assert_portable(select_kernels("cpu", cache), "refused the kernels", "error")
    assert not list(cache.iterdir())  # nothing half done stays


def test_a_compiler_that_hangs_is_given_up(
    native: NativeKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(command: list[str], *, timeout: float, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert_portable(select_kernels("cpu", tmp_path), "did not finish")


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(
    native: NativeKernels, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert_portable(select_kernels("cpu", tmp_path / "file" / "cache"), "slower")


def test_a_library_that_cannot_be_loaded_is_no_reason_to_stop(
    native: NativeKernels, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(ctypes, "PyDLL", refuse)
    assert_portable(select_kernels("cpu", kernel_cache), "failed to map segment")


@pytest.mark.parametrize("wrong", [0.0, torch.nan])
def test_compiled_kernels_that_compute_something_else_are_not_used(
    native: NativeKernels, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    def compute(self: NativeLinear, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        return torch.full((len(x), self.out_features), wrong)

    monkeypatch.setattr(NativeLinear, "__call__", compute)
    assert_portable(select_kernels("cpu", kernel_cache), "disagree")


def test_another_device_gets_torch_and_compiles_nothing(tmp_path: Path) -> None:
    assert_portable(select_kernels("cuda", tmp_path), "on cuda")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({}, True),
        ({"intermediate_size": 100}, False),
        ({"hidden_size": 60, "head_dim": 16}, False),
        ({"head_dim": 12}, False),
        ({"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 24}, True),
    ],
    ids=str,
)
def test_compiled_kernels_are_for_models_whose_widths_are_all_whole_eights(
    native: NativeKernels, kernel_cache: Path, tmp_path: Path, changed: dict[str, int], fits: bool
) -> None:
    LlamaConfig(**SIZES | changed).save_pretrained(tmp_path)
    choice = select_kernels("cpu", kernel_cache, architecture_of(tmp_path).widths)
    if fits:
        assert choice.native is not None
    else:
        assert_portable(choice, "no multiple of 8")
