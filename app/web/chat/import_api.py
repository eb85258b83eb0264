"""The route that imports a person's conversations from the export of another chat application.

The body is a JSON file or a zip with one, as ChatGPT exports it. It is streamed to the home folder,
read there in a thread, one file per person at a time, and always removed.
Knows files and limits; knows no format.
"""

from __future__ import annotations

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
from app.texts import language_for, translated
from app.web.auth.identity import user_of
from app.web.chat.unpacking import unpacked
from app.web.chat.uploads import private_folder, receive, remove_left_behind
from engine.errors import Conflict, InvalidInput
from engine.storage import translated_disk_errors
from feedback_store.formats import ConversationReport, import_conversations

MAX_IMPORT_BYTES = 200 * 2**20
PATH = "/chat/import"
FILE_NAME = "conversations.json"  # its name in error messages


def import_router(service: Service) -> APIRouter:
    """Return the route, on one running service."""
    router = APIRouter(include_in_schema=False)
    folder = service.workspace.home.imports
    remove_left_behind(folder)
    running: set[str] = set()
    one_at_a_time = CapacityLimiter(1)

    @router.post(PATH)
    async def import_file(request: Request) -> dict[str, Any]:
        user = user_of(request.session)
        with _only_one_of(user, running), private_folder(folder) as own:
            await receive(request, own / FILE_NAME)
            work = partial(_import, service, own / FILE_NAME, user)
            report = await run_sync(work, limiter=one_at_a_time)
        return _document(report, language_for(request))

    return router


@contextmanager
def _only_one_of(user: str, running: set[str]) -> Iterator[None]:
    if user in running:
        raise Conflict("an import of yours is still running; wait until it has ended")
    running.add(user)
    try:
        yield
    finally:
        running.remove(user)


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
