"""A lock between processes: an advisory lock (flock) on a file or a folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import Conflict

LOCK_POLL_SECONDS = 0.01


@contextmanager
def file_lock(
    path: Path, busy: Callable[[], str], *, patience_seconds: float = 0.0, shared: bool = False
) -> Iterator[int]:
    """Hold the lock of a folder, or of a file, which is made; yields its descriptor.

    A child process that inherits the descriptor holds the lock as well, and the system releases it
    with the last of them, however that ends. A `shared` lock excludes only one that is not. Raises
    `Conflict` with the text of `busy` if the lock is not free after `patience_seconds`.
    """
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience_seconds
        while not _try_lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise Conflict(busy())
            time.sleep(LOCK_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
