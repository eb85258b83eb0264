"""The archive of a backup: a tar file of regular files, the manifest with their digests last.

An archive that was cut off has no manifest, and one that was changed differs from it, or the
manifest from its own digest: both are refused. Knows files; knows nothing of what they hold.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import InvalidInput
from engine.storage import (
    MANIFEST,
    canonical_json,
    describe_files,
    digest_json,
    sync,
    translated_disk_errors,
    write_atomically,
)

ARCHIVE_FORMAT = "burnish-backup/1"
MAX_MANIFEST_BYTES = 1 << 28  # some million files


def write_archive(folder: Path, archive: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a folder's files into a new archive, which appears whole; returns its manifest.

    `facts` are JSON-ready values that the manifest has besides. Raises `InvalidInput` where the
    archive exists, `StorageFull` on a full disk; nothing is left of it then.
    """
    if archive.exists():
        raise InvalidInput(f"{archive} exists already")
    manifest = {
        "format": ARCHIVE_FORMAT,
        "created_at": time.time(),
        **facts,
        "files": describe_files(folder),
    }
    sealed = {**manifest, "digest": digest_json(manifest)}
    temporary = archive.with_name(f".tmp-{os.getpid()}-{archive.name}")
    with translated_disk_errors():
        try:
            write_atomically(folder / MANIFEST, canonical_json(sealed))
            with tarfile.open(temporary, "x:", format=tarfile.PAX_FORMAT) as tar:
                for name in (*manifest["files"], MANIFEST):
                    tar.add(folder / name, name, filter=_without_owner)
            sync(temporary)
            temporary.rename(archive)
            sync(archive.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return manifest


def extract_archive(archive: Path, folder: Path) -> dict[str, Any]:
    """Extract a verified archive into an empty folder; returns its manifest.

    Raises `InvalidInput` for a file that is no archive of a backup, or not the whole one that was
    written. What was extracted by then stays in the folder.
    """
    try:
        with tarfile.open(archive, mode="r:") as tar:
            for member in tar:
                _extract(tar, member, folder)
    except (tarfile.TarError, EOFError) as error:
        raise InvalidInput(f"{archive} is no archive of a backup, or cut off: {error}") from None
    return _verified(archive, folder)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one member, which must be a regular file below the folder."""
    path = PurePosixPath(member.name)
    if not member.isreg() or path.is_absolute() or ".." in path.parts:
        raise InvalidInput(f"the archive has a member that no backup has: {member.name[:80]!r}")
    source, target = tar.extractfile(member), folder / path
    assert source is not None, "it is a regular file"
    with translated_disk_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as stream:
            shutil.copyfileobj(source, stream)


def _verified(archive: Path, folder: Path) -> dict[str, Any]:
    """Return the manifest of extracted files; raises `InvalidInput` unless it describes them."""
    path = folder / MANIFEST
    if not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InvalidInput(f"{archive} is no archive of a backup, or cut off: it has no manifest")
    try:
        manifest = dict(json.loads(path.read_text("utf-8")))
    except (TypeError, ValueError, RecursionError):
        raise InvalidInput(f"the manifest of {archive} cannot be read") from None
    if manifest.get("format") != ARCHIVE_FORMAT:
        known = manifest.get("format")
        raise InvalidInput(f"{archive} is of the format {known!r}, not {ARCHIVE_FORMAT}")
    if manifest.pop("digest", None) != digest_json(manifest):
        raise InvalidInput(f"the manifest of {archive} is damaged")
    promised, found = dict(manifest.get("files") or {}), describe_files(folder)
    for name in sorted(promised.keys() | found.keys()):
        if promised.get(name) != found.get(name):
            raise InvalidInput(f"{archive} is damaged: {name[:80]} differs from the manifest")
    path.unlink()
    return manifest


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member
