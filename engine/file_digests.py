"""A cache of the digests of large files, so that a start need not read gigabytes again.

An entry is valid for one size, inode and time of change of its file. Every write to the file, and
every replacement, changes one of these (a program cannot set the time of change of an inode), so
truncated and edited files are noticed. Bits that decay on the disk without a write are not: that
is the price of a quick start. On a read-only or full disk, files are read whole at each start.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from engine.errors import StorageFull
from engine.storage import DIGEST, digest_file, digest_json, write_atomically


class FileDigests:
    """Digests of files, each cached in a file of its own in one folder."""

    def __init__(self, memos: Path) -> None:
        self._memos = memos

    def __call__(self, path: Path) -> str:
        """The digest of the file at `path`, computed anew if the file has changed."""
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
    """The cached digest; None where there is none of this stamp, or the entry is damaged."""
    try:
        entry = json.loads(memo.read_text("utf-8"))
        digest = str(entry["digest"])
        sound = entry["check"] == digest_json([stamp, digest]) and DIGEST.fullmatch(digest)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return digest if sound else None
