"""A running engine over the tiny model, and two adapters for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import torch

from engine.fast import FastEngine
from engine.kernels.build import NotBuilt, build
from engine.kernels.native import SOURCE, THREADS, NativeKernels
from engine.kernels.portable import PortableKernels
from engine.models.catalogue import BaseModel
from engine.models.kernel_selection import KernelChoice
from engine.reference import ReferenceEngine
from engine.storage import folder_of
from tests.helpers import make_bundle

AnyEngine = ReferenceEngine | FastEngine


class Adapters(NamedTuple):
    """Two good bundles for the tiny model."""

    root: Path
    a: str
    b: str

    def folder(self, digest: str) -> Path:
        return folder_of(self.root, digest)


class StartEngine(Protocol):
    """Starts an engine over a dense model in float32; it is closed when the test ends."""

    def __call__(self, base: BaseModel, **settings: Any) -> AnyEngine: ...


@pytest.fixture(params=["reference", "local"])
def start(request: pytest.FixtureRequest, kernel_cache: Path) -> Iterator[StartEngine]:
    """Either engine: what a caller relies on holds for both."""
    started: list[AnyEngine] = []

    def start(base: BaseModel, **settings: Any) -> AnyEngine:
        if request.param == "local":
            settings = {"kernel_cache": kernel_cache, **settings}
            started.append(FastEngine(base, dtype=torch.float32, **settings))
        else:
            started.append(ReferenceEngine(base, dtype=torch.float32, **settings))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


@pytest.fixture
def engine(start: StartEngine, tiny_base: BaseModel) -> AnyEngine:
    """A fresh engine; loading the tiny model takes a few hundredths of a second."""
    return start(tiny_base)


@pytest.fixture(scope="session")
def adapters(tiny_base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    root = tmp_path_factory.mktemp("bundles")
    return Adapters(
        root, make_bundle(root, tiny_base, seed=1), make_bundle(root, tiny_base, seed=2)
    )


@pytest.fixture(scope="session")
def native(kernel_cache: Path) -> NativeKernels:
    """The compiled kernels, on several threads whatever the first test to ask for them has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(2, threads))
    try:
        return NativeKernels(build(kernel_cache, SOURCE, THREADS))
    except NotBuilt as error:
        if "no C++ compiler" in str(error) or "lacks" in str(error):
            pytest.skip(f"compiled kernels: {error}")
        raise
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(params=["native", "portable"])
def choice(request: pytest.FixtureRequest) -> KernelChoice:
    """Either kernels, as a decoder is given them."""
    if request.param == "portable":
        return KernelChoice(PortableKernels(), "asked for")
    return KernelChoice(request.getfixturevalue("native"), "asked for")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tiny matrices, which threads of torch cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
