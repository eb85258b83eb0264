"""The lock of a home's erasures: one is carried out at a time, and none while a backup is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.file_lock import file_lock
from engine.home import Home


@contextmanager
def no_erasure(home: Home) -> Iterator[None]:
    """Keep others from erasing until the block ends; the lock of a process that dies is released.

    Raises `Conflict` while somebody else holds the lock.
    """
    busy = "somebody is being forgotten or a backup is taken just now; try again"
    with file_lock(home.forgetting_lock, lambda: busy):
        yield
