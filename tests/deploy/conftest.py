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
from tests.deploy.homes import HomeInUse
from tests.feedback_store.conftest import postgresql  # noqa: F401 - a fixture
from tests.postgresql import Server
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


@pytest.fixture
def home(tmp_path: Path, tiny_base: BaseModel) -> Iterator[HomeInUse]:
    folder = tmp_path / "home"
    folder.mkdir()
    home = HomeInUse(folder, migrated_sqlite(folder), tiny_base, tmp_path / "models")
    yield home
    home.database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def any_home(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_base: BaseModel
) -> Iterator[HomeInUse]:
    if request.param == "sqlite":
        yield request.getfixturevalue("home")
        return
    (tmp_path / "home").mkdir()
    server: Server = request.getfixturevalue("postgresql")
    home = HomeInUse(tmp_path / "home", server.create_migrated(), tiny_base, tmp_path / "models")
    yield home
    home.database.close()
