"""A registry in a fresh SQLite file, and an engine with the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from deploy.loop import Loop
from deploy.releases.registry import Registry
from deploy.rounds.store import RoundStore
from engine.adapters.slots import AdapterSlots
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from feedback_store.curation.decisions import Curation
from feedback_store.snapshots.taking import take_snapshot
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.deploy.homes import HomeInUse
from tests.feedback_store.conftest import postgresql  # noqa: F401 - a fixture
from tests.postgresql import Server
from tests.support.databases import migrated_sqlite
from tests.support.played_jobs import PlayedJobs
from tuning.jobs.runner import JobRunner


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


@pytest.fixture
def store(database: Database) -> FeedbackStore:
    return FeedbackStore(database)


@pytest.fixture
def jobs(bundles: Path, tiny_base: BaseModel) -> PlayedJobs:
    return PlayedJobs(bundles, tiny_base)


@pytest.fixture
def curation(database: Database, store: FeedbackStore) -> Curation:
    return Curation(database)


@pytest.fixture
def training_set(database: Database, curation: Curation) -> TrainingSet:
    return TrainingSet(EvidenceReader(database), curation)


@pytest.fixture
def snap(tmp_path: Path, training_set: TrainingSet, curation: Curation) -> Callable[[], str]:
    """Takes a snapshot."""
    return partial(take_snapshot, tmp_path / "snapshots", training_set, curation)


@pytest.fixture
def loop(
    tmp_path: Path,
    tiny_base: BaseModel,
    training_set: TrainingSet,
    snap: Callable[[], str],
    registry: Registry,
    jobs: PlayedJobs,
    database: Database,
) -> Loop:
    return Loop(
        home=Home(tmp_path),
        base=tiny_base,
        training_set=training_set,
        take_snapshot=snap,
        registry=registry,
        jobs=cast(JobRunner, jobs),
        rounds=RoundStore(database),
        min_new_pairs=3,
    )


@pytest.fixture
def slots(engine: ReferenceEngine, tiny_base: BaseModel, bundles: Path) -> AdapterSlots:
    return AdapterSlots(engine, tiny_base, bundles)
