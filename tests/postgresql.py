"""A PostgreSQL server for tests: one that is given by URL, or a cluster of their own.

`BURNISH_TEST_POSTGRESQL_URL` names a database whose user may create others. Without it, a cluster
is made in a temporary folder and reached through a socket in it, so that no port is taken. The
server refuses to run as root; it runs as Debian's user `postgres` then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from tests.support.databases import migrate

GIVEN = "BURNISH_TEST_POSTGRESQL_URL"
DEBIAN = Path("/usr/lib/postgresql")
FAST = "-F -c full_page_writes=off -c synchronous_commit=off -c listen_addresses="


class Server:
    """Makes databases. One takes 0.3 s, so that most tests share one and empty it."""

    _template: str | None = None  # the name of a database with all tables, which others copy

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._engine = create_engine(self._url, isolation_level="AUTOCOMMIT")

    def create(self, template: str = "template1") -> str:
        """A new, empty database; returns its URL as an operator would write it."""
        name = f"burnish_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        url = self._url.set(database=name, drivername="postgresql")
        return url.render_as_string(hide_password=False)

    def create_migrated(self) -> str:
        """A new database with all tables and no row; returns its URL."""
        if self._template is None:
            url = self.create()
            migrate(url)
            self._template = make_url(url).database
        return self.create(str(self._template))

    def close(self) -> None:
        self._engine.dispose()

    def _run(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql(statement)


@contextmanager
def running() -> Iterator[Server]:
    """A server while the block lasts; skips the test where there is no way to have one."""
    given = os.environ.get(GIVEN)
    if given:
        server = Server(given)
        yield server
        server.close()
        return
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="burnish-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        _as_server_user(
            programs / "initdb",
            "-D",
            folder / "data",
            "-A",
            "trust",
            "-U",
            "burnish",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )
        control = (programs / "pg_ctl", "-D", folder / "data", "-w")
        _as_server_user(*control, "-l", folder / "log", "-o", f"{FAST} -k {folder}", "start")
        try:
            server = Server(f"postgresql://burnish@/postgres?host={folder}")
            yield server
            server.close()
        finally:
            _as_server_user(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    """Where the server's programs are."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).parent
    versions = sorted(DEBIAN.glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[-3]))
    if not versions:
        pytest.skip(f"needs a PostgreSQL server: apt-get install postgresql, or set {GIVEN}")
    return versions[-1].parent


def _as_server_user(*command: object) -> None:
    """Run one of the server's programs; its output is shown when it fails."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["runuser", "-u", "postgres", "--", *words]
    done = subprocess.run(words, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
