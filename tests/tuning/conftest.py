"""Pairs, snapshots and the tiny model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from tuning.kernels import PORTABLE, choose_kernels
from tuning.kernels.native import NativeTuningKernels
from tuning.kernels.portable import TuningKernels


@pytest.fixture(scope="session")
def tokenizer(tiny_base: BaseModel) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base.folder)


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer)


@pytest.fixture(scope="session")
def native(kernel_cache: Path) -> NativeTuningKernels:
    """The compiled kernels."""
    choice = choose_kernels(kernel_cache)
    if not isinstance(choice.kernels, NativeTuningKernels):
        assert "disagree" not in choice.reason and "refused" not in choice.reason, choice.reason
        pytest.skip(f"compiled kernels: {choice.reason}")
    return choice.kernels


@pytest.fixture(params=["native", "portable"])
def kernels(request: pytest.FixtureRequest) -> TuningKernels:
    """Either kernels, as a stage is given them."""
    if request.param == "portable":
        return PORTABLE
    found: NativeTuningKernels = request.getfixturevalue("native")
    return found
