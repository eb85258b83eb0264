"""Digests of large files, remembered so that a start need not read gigabytes again.

A digest is remembered with the file's size, inode and times of change. Whatever writes to a file,
or puts another in its place, changes one of them (the time of the last change of the inode cannot
be set by a program), so truncated and edited files are noticed. What is traded for a quick start:
bits that decay on the disk without a write are not noticed until the file is read whole.
Where nothing can be remembered (a read-only or full disk), files are read whole at each start.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from engine.errors import StorageFull
from engine.storage import DIGEST, digest_file, digest_json, write_atomically


class FileDigests:
    """Digests of files, each remembered in a file of its own in one folder."""

    def __init__(self, memos: Path) -> None:
        self._memos = memos

    def __call__(self, path: Path) -> str:
        """The digest of the file at `path`, computed anew if anything has changed since."""
        memo = self._memos / f"{digest_json(str(path.resolve()))[7:]}.json"
        stamp = _stamp(path)
        remembered = _read(memo, stamp)
        if remembered is not None:
            return remembered
        digest = digest_file(path)
        entry = {"stamp": stamp, "digest": digest, "check": digest_json([stamp, digest])}
        with contextlib.suppress(OSError, StorageFull):
            write_atomically(memo, json.dumps(entry).encode())
        return digest


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(memo: Path, stamp: list[int]) -> str | None:
    """The remembered digest; None where there is none of this stamp, or the memo is damaged."""
    try:
        entry = json.loads(memo.read_text("utf-8"))
        digest = str(entry["digest"])
        sound = entry["check"] == digest_json([stamp, digest]) and DIGEST.fullmatch(digest)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return digest if sound else None
