"""Immutable, content-addressed folders: snapshots and bundles on disk.

Publishing is all or nothing: the files are written into a temporary folder on the same file
system and synced, the manifest last; one rename makes the folder visible; the parent is synced.
After a crash there is either nothing or the whole folder, and at most a `.tmp-*` folder beside it,
which `sweep` removes. While a process fills such a folder it holds the lock of a file beside it, so
that the sweep of another process leaves it alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import Conflict, InvalidInput, StorageFull, UnknownId
from engine.file_lock import file_lock
from engine.time_slices import YieldToEngine, do_not_yield

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MANIFEST = "manifest.json"
LOCK_SUFFIX = ".lock"
PIECE_BYTES = 1 << 18  # hashed at once; larger pieces are no faster
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def canonical_json(value: object) -> bytes:
    """One byte string per value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode()


def digest_bytes(data: bytes) -> str:
    """Tagged sha256, `sha256:<64 hex digits>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_json(value: object) -> str:
    """Digest of a value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path, yield_to_engine: YieldToEngine = do_not_yield) -> str:
    """Digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            yield_to_engine()
    return "sha256:" + digest.hexdigest()


def folder_of(root: Path, digest: str) -> Path:
    """The folder of the artefact with this digest.

    Raises `UnknownId` for anything but a digest, so that no name can lead outside `root`.
    """
    if not DIGEST.fullmatch(digest):
        raise UnknownId(f"not an id: {digest[:80]!r}")
    return root / digest.removeprefix("sha256:")


def find_digest(root: Path, prefix: str) -> str:
    """The one digest under `root` that starts with `prefix` (with or without `sha256:`)."""
    wanted = prefix.removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{4,64}", wanted):
        raise UnknownId(f"not an id: {prefix[:80]!r} (4 to 64 hexadecimal digits are)")
    found = [digest for digest in list_digests(root) if digest[7:].startswith(wanted)]
    if len(found) != 1:
        raise UnknownId(f"{len(found)} ids under {root.name}/ start with {wanted}")
    return found[0]


def short_id(digest: str) -> str:
    """The 12 hexadecimal digits by which people are shown an id; `find_digest` takes them."""
    return digest.removeprefix("sha256:")[:12]


def list_digests(root: Path) -> list[str]:
    """Digests of the folders that are published under `root`."""
    if not root.is_dir():
        return []
    names = sorted(p.name for p in root.iterdir() if (p / MANIFEST).is_file())
    return [f"sha256:{name}" for name in names if DIGEST.fullmatch(f"sha256:{name}")]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The folder's `manifest.json`, which must be a JSON object."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnknownId(f"no readable manifest in {folder.name}") from error
    if not isinstance(manifest, dict):
        raise UnknownId(f"the manifest in {folder.name} is not an object")
    return manifest


def publish(root: Path, fill: Callable[[Path], dict[str, Any]]) -> str:
    """Publish the files that `fill` writes; returns the folder's digest, that of its manifest.

    `fill` writes the files into the folder it is given and returns the manifest without its
    `files` entry, which is added here: `{name: {"sha256": ..., "bytes": ...}}`.
    Raises `StorageFull` on a full disk; nothing is visible then.
    """
    with translated_disk_errors():
        root.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(root, mode=0o700) as temporary:
            manifest = fill(temporary)
            manifest["files"] = describe_files(temporary)
            digest = digest_json(manifest)
            for path in sorted(temporary.rglob("*")):
                sync(path)
            _write_synced(temporary / MANIFEST, canonical_json(manifest))
            sync(temporary)
            target = folder_of(root, digest)
            _make_visible(temporary, target)
            return digest


def move_published(root: Path, other: Path, digest: str) -> None:
    """Move a published folder to another root on the same file system, whole or not at all.

    One that is there already stays, and this one is removed. Raises `UnknownId` if it is not here.
    """
    source, target = folder_of(root, digest), folder_of(other, digest)
    if not source.exists():
        raise UnknownId(f"no {digest[:80]} in {root.name}")
    with translated_disk_errors():
        other.mkdir(parents=True, exist_ok=True)
        _make_visible(source, target)
        shutil.rmtree(source, ignore_errors=True)
        sync(root)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes `target` when the block ends without an error.

    Until then it lies beside the target, on the same file system: nobody sees a part of it, and
    an error leaves nothing. A killed process leaves a `.tmp-*` folder at most.
    Raises `InvalidInput` where the target exists, `StorageFull` on a full disk.
    """
    if target.exists():
        raise InvalidInput(f"{target} exists already")
    with translated_disk_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(target.parent, f"-{target.name}", mode=0o777) as temporary:
            yield temporary
            for path in sorted(temporary.rglob("*")):
                sync(path)
            sync(temporary)
            temporary.rename(target)
            sync(target.parent)


def _make_visible(temporary: Path, target: Path) -> None:
    """Rename the folder, unless the same content exists or is published at the same moment."""
    if target.exists():
        return
    try:
        temporary.rename(target)
    except OSError:
        if not target.exists():
            raise
    sync(target.parent)


def describe_files(
    folder: Path, digest_of: Callable[[Path], str] = digest_file
) -> dict[str, dict[str, object]]:
    """Digest and size of each file under a folder, its manifest left out."""
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": digest_of(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def verify(root: Path, digest: str, digest_of: Callable[[Path], str] = digest_file) -> list[str]:
    """Every difference between the published folder and its manifest, whose digest is `digest`.

    `digest_of` computes the digest of a file.
    """
    folder = folder_of(root, digest)
    if folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*")):
        return ["the folder is or contains a symbolic link"]
    try:
        manifest = read_manifest(folder)
        matches = digest_bytes((folder / MANIFEST).read_bytes()) == digest
    except UnknownId as error:
        return [str(error)]
    problems = [] if matches else ["manifest.json does not match the id"]
    promised, found = manifest.get("files"), describe_files(folder, digest_of)
    if not isinstance(promised, dict):
        return [*problems, "the manifest lists no files"]
    for name in sorted(promised.keys() | found.keys()):
        if name not in found:
            problems.append(f"{name} is missing")
        elif name not in promised:
            problems.append(f"{name} is not in the manifest")
        elif promised[name] != found[name]:
            problems.append(f"{name} differs from its sha256")
    return problems


def remove_folder(folder: Path) -> bool:
    """Remove a folder and return whether there was one.

    It disappears by a rename before its files are deleted, so that nobody reads a part of it. A
    killed process leaves a `.tmp-*` folder at most.
    """
    doomed = folder.with_name(f".tmp-{folder.name}")
    _remove_tree(doomed)  # a crash left it
    if not folder.exists():
        return False
    try:
        folder.rename(doomed)
    except FileNotFoundError:  # somebody else was first
        return False
    _remove_tree(doomed)
    return True


def _remove_tree(folder: Path) -> None:
    """Delete a folder; a sweep of another process may be deleting it too."""

    def ignore_deleted(_function: object, _path: str, raised: Any) -> None:
        if not isinstance(raised[1], FileNotFoundError):
            raise raised[1]

    shutil.rmtree(folder, onerror=ignore_deleted)


def sweep(root: Path) -> None:
    """Remove folders and files that a crash left half-published; what a living process is writing
    stays, since that holds its lock."""
    for leftover in sorted(root.glob(".tmp-*")):
        is_folder = leftover.is_dir()
        lock = leftover.with_name(leftover.name + LOCK_SUFFIX) if is_folder else leftover
        with suppress(Conflict, OSError), file_lock(lock, lambda: "it is being written"):
            if is_folder:
                shutil.rmtree(leftover, ignore_errors=True)
            lock.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace one file so that a reader sees the old or the new content, never a part."""
    with translated_disk_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{secrets.token_hex(8)}-{path.name}")
        with _new_locked_file(temporary) as descriptor:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                _write_and_sync(file, data)
            temporary.replace(path)


@contextmanager
def translated_disk_errors() -> Iterator[None]:
    """Turn a full or read-only disk into `StorageFull`, whichever library met it."""
    try:
        yield
    except Exception as error:
        number = _disk_error(error)
        if number is None:
            raise
        filename = getattr(error, "filename", None)
        where = f" {filename}" if filename else ""
        raise StorageFull(f"cannot write{where}: {os.strerror(number)}") from error


def _disk_error(error: Exception) -> int | None:
    """The system's number for a full or read-only disk; safetensors gives it in its text alone."""
    if isinstance(error, OSError):
        return error.errno if error.errno in DISK_ERRORS else None
    return next((n for n in DISK_ERRORS if f"(os error {n})" in str(error)), None)


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        _write_and_sync(file, data)


def _write_and_sync(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _temporary_folder(parent: Path, name: str = "", *, mode: int) -> Iterator[Path]:
    """Create a folder that no sweep takes; what is left of it at the end is deleted."""
    folder = parent / f".tmp-{secrets.token_hex(8)}{name}"
    lock = folder.with_name(folder.name + LOCK_SUFFIX)  # NFS cannot lock a folder itself
    with _new_locked_file(lock):
        try:
            try:
                folder.mkdir(mode)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            with suppress(OSError):
                lock.unlink()


@contextmanager
def _new_locked_file(path: Path) -> Iterator[int]:
    """Create a file and hold its lock; yields its descriptor.

    A sweep may delete the file before it is locked; it is created again then.
    """
    while True:
        with file_lock(path, lambda: f"{path} is locked", patience_seconds=60) as descriptor:
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                yield descriptor
                return


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
