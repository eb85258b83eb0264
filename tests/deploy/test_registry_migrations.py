"""The tables of the registry are those of its migrations, which keep every row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from deploy.releases import registry as registry_module
from deploy.releases.registry import LiveRelease, Registry
from feedback_store.storage.database import Database
from tests.deploy.first_registry import make_registry
from tests.deploy.promotions import A, B
from tests.feedback_store.conftest import sqlite_url
from tests.postgresql import Server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without a table."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path)
    else:
        server: Server = request.getfixturevalue("postgresql")
        url = server.create()
    database = Database(url)
    yield database
    database.close()


# The tables


def test_the_tables_in_the_code_are_those_of_the_migrations(empty_database: Database) -> None:
    Registry(empty_database)
    with empty_database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "alembic_version_deploy", "compare_type": True}
        )
        assert compare_metadata(context, registry_module.release_tables) == []


def test_a_registry_of_the_first_version_keeps_every_row(empty_database: Database) -> None:
    """Version deploy_0001, which knew no taints, as Burnish 0.1 left it."""
    statements = (
        # Its reports named the conversations that a verdict rests on
        f"""INSERT INTO releases VALUES ('{A}', '{{"scores": [{{"conversation": 1}}]}}', 1.0),"""
        f" ('{B}', '{{}}', 2.0)",
        f"INSERT INTO live VALUES (1, '{B}', 2)",
        f"INSERT INTO release_history VALUES (1, 'promote', '{A}', NULL, '', 1.0),"
        f" (2, 'promote', '{B}', '{A}', '', 2.0)",
    )
    make_registry(empty_database, "deploy_0001", statements)
    registry = Registry(empty_database)
    assert [(release.bundle, release.report) for release in registry.list()] == [(B, {}), (A, {})]
    assert [change.bundle for change in registry.history()] == [B, A]
    assert registry.live() == LiveRelease(B, 2)
    assert registry.taint([B], "forgotten") == LiveRelease(A, 3)
