"""Back up a home while people chat: one archive in which database and artefacts fit together.

Whatever a database names was published before, and artefacts never change. So the database is
copied first, as of one moment, and the artefacts are linked after it; erasures wait for both, some
seconds. The archive is written from the links then, and nobody waits for it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.backups.archive import write_archive
from deploy.backups.secret_settings import without_secrets
from deploy.erasure_lock import no_erasure
from engine.file_lock import file_lock
from engine.home import Home
from engine.storage import translated_disk_errors
from feedback_store.storage.database import Database
from feedback_store.storage.dump import dump_database

HALF_PUBLISHED = ".tmp-*"
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)  # what such file systems answer


def back_up(
    home: Home,
    database: Database,
    archive: Path,
    *,
    secret_settings: Collection[str],
    with_keys: bool = False,
) -> dict[str, Any]:
    """Write a home into a new archive; returns its manifest.

    `with_keys` takes the key of session cookies and the secrets of the settings file, whose names
    are `secret_settings`. Raises `Conflict` while another backup is made or somebody is being
    forgotten, `InvalidInput` where the archive exists, `StorageFull` on a full disk.
    """
    with _staging_folder(home) as staging:
        with translated_disk_errors(), no_erasure(home):
            kind = dump_database(database, staging)
            for folder in (*home.artefacts, home.documents):
                _link_published(folder, staging / folder.name)
        _copy_files(home, staging, secret_settings, with_keys=with_keys)
        return write_archive(staging, archive, {"database": kind, "with_keys": with_keys})


def _link_published(root: Path, target: Path) -> None:
    """Give the files under a folder of immutable folders a second name under `target`."""
    if root.is_dir():
        ignored = shutil.ignore_patterns(HALF_PUBLISHED)
        shutil.copytree(root, target, ignore=ignored, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)


def _copy_files(
    home: Home, staging: Path, secret_settings: Collection[str], *, with_keys: bool
) -> None:
    """Copy the operator's files; the keys only where they are asked for."""
    for path in (home.examples, home.prompts, home.open_webui, *([home.session_key] * with_keys)):
        if path.is_file():
            shutil.copyfile(path, staging / path.name)
    if home.settings.is_file():
        text = home.settings.read_text("utf-8")
        kept = text if with_keys else without_secrets(text, secret_settings)
        (staging / home.settings.name).write_text(kept, "utf-8")


@contextmanager
def _staging_folder(home: Home) -> Iterator[Path]:
    """Yield an empty folder of the home for this backup alone; it is removed at the end.

    What a killed backup left in it is removed at the beginning of the next one.
    """
    folder = home.backup
    folder.mkdir(mode=0o700, exist_ok=True)
    with file_lock(folder, lambda: "another backup of this home is being made"):
        _empty(folder)
        try:
            yield folder
        finally:
            _empty(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
