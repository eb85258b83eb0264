"""The lock of a home's erasures: one is carried out at a time, and none while a backup is taken."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import Conflict
from engine.home import Home


@contextmanager
def no_erasure(home: Home) -> Iterator[None]:
    """Keep others from erasing until the block ends; the lock of a process that dies is released.

    Raises `Conflict` while somebody else holds the lock.
    """
    with home.forgetting_lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "somebody is being forgotten or a backup is taken just now; try again"
            ) from None
        yield
