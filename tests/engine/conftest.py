"""Running engines over the tiny model, and two adapters for it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from engine.fast import FastEngine
from engine.kernels.build import NotBuilt, build
from engine.kernels.native import SOURCE, THREADS, NativeKernels
from engine.kernels.portable import PortableKernels
from engine.models.catalogue import BaseModel
from engine.models.kernel_selection import KernelChoice
from engine.quantization import Quantization
from engine.reference import ReferenceEngine
from tests.helpers import make_bundle
from tests.support.engines import Adapters, AnyEngine
from tests.support.waiting import wait_until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where folders are published; it is not there yet."""
    return tmp_path / "root"


class StartEngine(Protocol):
    """Starts an engine over a dense model in float32; it is closed when the test ends."""

    def __call__(self, base: BaseModel, **settings: Any) -> AnyEngine: ...


class MakeEngine(Protocol):
    """Starts an engine of a kind over a dense model in float32."""

    def __call__(self, kind: str, base: BaseModel, **settings: Any) -> AnyEngine: ...


@pytest.fixture(params=["reference", "fast"])
def kind(request: pytest.FixtureRequest) -> str:
    """Either engine, since callers rely on the same of both."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def make_engine(kernel_cache: Path) -> MakeEngine:
    def make(kind: str, base: BaseModel, **settings: Any) -> AnyEngine:
        if kind == "fast":
            settings = {"kernel_cache": kernel_cache, **settings}
            return FastEngine(base, dtype=torch.float32, **settings)
        return ReferenceEngine(base, dtype=torch.float32, **settings)

    return make


@pytest.fixture
def start(kind: str, make_engine: MakeEngine) -> Iterator[StartEngine]:
    with contextlib.ExitStack() as engines:

        def start(base: BaseModel, **settings: Any) -> AnyEngine:
            engine = make_engine(kind, base, **settings)
            engines.callback(engine.close)
            return engine

        yield start


@pytest.fixture(scope="session")
def running_engines(
    make_engine: MakeEngine, tiny_base: BaseModel
) -> Iterator[Callable[[str], AnyEngine]]:
    """One engine of each kind for the whole session, started when it is first asked for."""
    with contextlib.ExitStack() as engines:

        @functools.cache
        def running(kind: str) -> AnyEngine:
            engine = make_engine(kind, tiny_base)
            engines.callback(engine.close)
            return engine

        yield running


@pytest.fixture
def engine(kind: str, running_engines: Callable[[str], AnyEngine]) -> Iterator[AnyEngine]:
    """The running engine of a kind; a test leaves no stream and no adapter in it."""
    engine = running_engines(kind)
    yield engine
    wait_until(lambda: engine.active_streams == 0)
    for digest in engine.adapters:
        engine.unload_adapter(digest)


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


class StartFast(Protocol):
    """Starts the fast engine; it is closed when the test ends."""

    def __call__(self, quantization: Quantization = "none", **settings: Any) -> FastEngine: ...


@pytest.fixture
def start_fast(tiny_base: BaseModel, kernel_cache: Path) -> Iterator[StartFast]:
    with contextlib.ExitStack() as engines:

        def start(quantization: Quantization = "none", **settings: Any) -> FastEngine:
            settings = {"base": tiny_base, "dtype": torch.float32, **settings}
            engine = FastEngine(
                settings.pop("base"),
                kernel_cache=kernel_cache,
                quantization=quantization,
                **settings,
            )
            engines.callback(engine.close)
            return engine

        yield start


HOLDINGS: tuple[Quantization, ...] = ("none", "int8", "int4")


@pytest.fixture(params=HOLDINGS)
def quantization(request: pytest.FixtureRequest) -> Quantization:
    held: Quantization = request.param
    return held
