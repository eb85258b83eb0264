"""The migration of one floor's tables by alembic, which is imported where a database needs one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from engine.errors import BurnishError


def upgrade(connection: Connection, scripts: Path, version_table: str) -> None:
    """Bring tables to the newest version of a folder of migrations.

    Raises `BurnishError` for a database with a version that no script makes.
    """
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=version_table)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise BurnishError(
            f"the database was written by a newer Burnish ({error}); upgrade Burnish"
        ) from error
