"""Make a home from the archive of a backup: verified whole first, and visible at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.backups.archive import extract_archive
from engine.errors import InvalidInput
from engine.home import Home
from engine.storage import list_digests, new_folder, short_id, verify
from feedback_store.storage.database import database_url
from feedback_store.storage.dump import load_dump


def restore(archive: Path, home: Home, configured_url: str | None) -> dict[str, Any]:
    """Restore a backup into a new home, or an empty folder; returns the archive's manifest.

    `configured_url` is the setting of the database's URL. A database of PostgreSQL must be there
    and empty. Raises `InvalidInput` for a home that is not empty and for an archive that is damaged
    or of another kind of database, `Conflict` for a database that is not empty; nothing is restored
    then.
    """
    if home.root.is_dir():
        if any(home.root.iterdir()):
            raise InvalidInput(f"{home.root} is not empty: a backup is restored into a new home")
        home.root.rmdir()
    with new_folder(home.root) as folder:
        folder.chmod(0o700)
        manifest = extract_archive(archive, folder)
        restored = Home(folder)
        _require_whole(restored)
        kind = manifest.get("database")
        if kind not in ("sqlite", "postgresql"):
            raise InvalidInput(f"{archive} holds an unknown kind of database: {kind!r}")
        load_dump(kind, folder, database_url(restored, configured_url))
    return manifest


def _require_whole(home: Home) -> None:
    """Raise `InvalidInput` where an artefact is not the one that its name is the digest of."""
    for root in home.artefacts:
        for digest in list_digests(root):
            if problems := verify(root, digest):
                raise InvalidInput(f"{root.name}/{short_id(digest)} is damaged: {problems[0]}")
