"""A copy of the database as of one moment, taken while others write, and a database made from it.

SQLite's is a database file, by its online backup (sqlite.org/backup.html); PostgreSQL's is an
archive of pg_dump, so its client programs must be installed and no older than the server.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, inspect, make_url

from engine.errors import BurnishError, Conflict, DatabaseUnavailable, InvalidInput
from feedback_store.storage.database import Database

DatabaseKind = Literal["sqlite", "postgresql"]
DUMPS: dict[DatabaseKind, str] = {"sqlite": "burnish.db", "postgresql": "database.pgdump"}


def dump_database(database: Database, folder: Path) -> DatabaseKind:
    """Write a copy of the database into a folder, under its name in `DUMPS`; returns its kind.

    Raises `DatabaseUnavailable` where it cannot be read, `InvalidInput` where PostgreSQL's client
    programs are missing.
    """
    url = make_url(database.url)
    if url.get_backend_name() == "sqlite":
        database.copy_file(folder / DUMPS["sqlite"])
        return "sqlite"
    target = folder / DUMPS["postgresql"]
    _run_client(url, "pg_dump", "--format=custom", "--no-owner", "--no-acl", f"--file={target}")
    return "postgresql"


def load_dump(kind: DatabaseKind, folder: Path, url: str | URL) -> None:
    """Make the database of a URL from the copy in a folder, which leaves the folder.

    SQLite's stays where the URL names a file of its name there. Raises `Conflict` where that
    database has tables, `InvalidInput` where it is of another kind or the copy is damaged.
    """
    dump, parsed = folder / DUMPS[kind], make_url(url)
    if not dump.is_file():
        raise InvalidInput(f"the backup has no {dump.name}")
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite != (kind == "sqlite"):
        raise InvalidInput(
            f"the backup is of a {kind} database: set BURNISH_DATABASE_URL to an empty one"
            if kind == "postgresql"
            else "the backup is of a sqlite database: BURNISH_DATABASE_URL must not be set"
        )
    if is_sqlite:
        _require_sound(dump)
        target = Path(str(parsed.database))
        if target != dump:  # a file elsewhere, which the settings name
            if target.exists():
                raise Conflict(f"{target} exists already")
            shutil.move(dump, target)
        return
    database = Database(url)
    try:
        with database.read() as connection:
            if inspect(connection).get_table_names():
                raise Conflict("the database of BURNISH_DATABASE_URL is not empty")
    finally:
        database.close()
    _run_client(
        parsed,
        "pg_restore",
        *("--exit-on-error", "--single-transaction", "--no-owner", "--no-acl"),
        str(dump),
    )
    dump.unlink()


def _require_sound(dump: Path) -> None:
    """Raise `InvalidInput` unless SQLite finds its own file in order."""
    database = Database(URL.create("sqlite", database=str(dump.absolute())))
    try:
        with database.read() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    except DatabaseUnavailable as error:
        raise InvalidInput(f"the backup's database is damaged: {error}") from error
    finally:
        database.close()
    if found != ["ok"]:
        raise InvalidInput("the backup's database is damaged")


def _run_client(url: URL, program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL's client; the password is in no argument."""
    path = shutil.which(program)
    if path is None:
        raise InvalidInput(f"{program} is missing: install PostgreSQL's client programs")
    public = url.set(drivername="postgresql", password=None).render_as_string()
    environment = {"PGPASSWORD": str(url.password)} if url.password else {}
    command: Sequence[str] = (path, f"--dbname={public}", "--no-password", *arguments)
    done = subprocess.run(  # noqa: S603 - a program of the system's, by its path
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = next(iter(done.stderr.splitlines()), "no reason given")
        raise BurnishError(f"{program} failed: {reason}")
