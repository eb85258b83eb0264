"""A registry in a fresh SQLite file, and an engine with the tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.releases.registry import Registry
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from feedback_store.storage.database import Database
from tests.support.databases import migrated_sqlite


@pytest.fixture
def url(tmp_path: Path) -> str:
    return migrated_sqlite(tmp_path)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    return Home(tmp_path).bundles


@pytest.fixture
def engine(tiny_base: BaseModel) -> Iterator[ReferenceEngine]:
    engine = ReferenceEngine(tiny_base)
    yield engine
    engine.close()
