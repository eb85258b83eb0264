"""The route that imports a person's conversations from the export of another chat application.

The body is a JSON file or a zip with one, as ChatGPT exports it. It is streamed to the home folder,
read there in a thread, one file per person at a time, and always removed.
Knows files and limits; knows no format.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from app.service import Service
from app.ui.texts import language_for, translated
from app.web.identity import user_of
from app.web.unpacking import unpacked
from engine.errors import Conflict, InvalidInput
from engine.private_files import create_private
from engine.storage import translated_disk_errors
from feedback_store.formats import ConversationReport, import_conversations

MAX_IMPORT_BYTES = 200 * 2**20
PATH = "/chat/import"
FILE_NAME = "conversations.json"  # its name in error messages
WRITE_BUFFER_BYTES = 2**20
LEFT_OVER_SECONDS = 24 * 3600  # longer than any import takes


def import_router(service: Service) -> APIRouter:
    """Return the route, on one running service."""
    router = APIRouter(include_in_schema=False)
    folder = service.workspace.home.imports
    _remove_left_over(folder)
    running: set[str] = set()
    one_at_a_time = CapacityLimiter(1)

    @router.post(PATH)
    async def import_file(request: Request) -> dict[str, Any]:
        user = user_of(request.session)
        with _only_one_of(user, running), _private_folder(folder) as own:
            await _receive(request, own / FILE_NAME)
            work = partial(_import, service, own / FILE_NAME, user)
            report = await run_sync(work, limiter=one_at_a_time)
        return _document(report, language_for(request))

    return router


def _remove_left_over(folder: Path) -> None:
    """Remove the files of killed servers; another server on this home may be importing."""
    for own in folder.glob("*"):
        if time.time() - own.stat().st_mtime > LEFT_OVER_SECONDS:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _only_one_of(user: str, running: set[str]) -> Iterator[None]:
    if user in running:
        raise Conflict("an import of yours is still running; wait until it has ended")
    running.add(user)
    try:
        yield
    finally:
        running.remove(user)


@contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    with translated_disk_errors():
        parent.mkdir(mode=0o700, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


async def _receive(request: Request, file: Path) -> None:
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


def _import(service: Service, file: Path, user: str) -> list[ConversationReport]:
    """Import each file of conversations within a file or zip."""
    with translated_disk_errors():
        files = unpacked(file)
    try:
        return [import_conversations(service.workspace.store, each, user=user) for each in files]
    except InvalidInput as error:
        raise InvalidInput(f"this file cannot be imported: {error}") from error


def _document(reports: list[ConversationReport], language: str) -> dict[str, Any]:
    """Return the counts of imported conversations over all files."""
    set_aside: Counter[str] = Counter()
    for report in reports:
        set_aside.update({translated(why, language): n for why, n in report.set_aside.items()})
    counted = ("conversations", "added", "turns", "answers")
    sums = {name: sum(getattr(report, name) for report in reports) for name in counted}
    return {**sums, "set_aside": dict(set_aside)}
