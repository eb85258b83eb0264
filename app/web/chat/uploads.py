"""Files that a request brings: a private folder for each, and the streaming of its body there."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyio.to_thread import run_sync
from fastapi import Request

from engine.private_files import create_private
from engine.storage import translated_disk_errors
from engine.units import DAY_SECONDS

WRITE_BUFFER_BYTES = 2**20
LEFT_BEHIND_SECONDS = DAY_SECONDS  # longer than any import takes


def remove_left_behind(folder: Path) -> None:
    """Remove the files of killed servers; another server on this home may be importing."""
    for own in folder.glob("*"):
        if time.time() - own.stat().st_mtime > LEFT_BEHIND_SECONDS:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Yield a folder that only this account may read; it is removed in the end."""
    with translated_disk_errors():
        parent.mkdir(mode=0o700, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


async def receive(request: Request, file: Path) -> None:
    """Stream the body to a file."""
    create_private(file)
    waiting = bytearray()
    async for piece in request.stream():
        waiting += piece
        if len(waiting) >= WRITE_BUFFER_BYTES:
            await run_sync(_append, file, bytes(waiting))
            waiting.clear()
    await run_sync(_append, file, bytes(waiting))


def _append(file: Path, data: bytes) -> None:
    with translated_disk_errors(), file.open("ab") as stream:
        stream.write(data)
