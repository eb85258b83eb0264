"""A running engine over the tiny model, and two adapters for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from engine.storage import folder_of
from tests.helpers import make_bundle


class Adapters(NamedTuple):
    """Two good bundles for the tiny model."""

    root: Path
    a: str
    b: str

    def folder(self, digest: str) -> Path:
        return folder_of(self.root, digest)


@pytest.fixture
def engine(tiny_base: BaseModel) -> Iterator[ReferenceEngine]:
    """A fresh engine; loading the tiny model takes a few hundredths of a second."""
    engine = ReferenceEngine(tiny_base, dtype=torch.float32)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def adapters(tiny_base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    root = tmp_path_factory.mktemp("bundles")
    return Adapters(
        root, make_bundle(root, tiny_base, seed=1), make_bundle(root, tiny_base, seed=2)
    )
