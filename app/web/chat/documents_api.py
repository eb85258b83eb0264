"""Routes of documents: a person's own collections, and those shared with everybody.

An uploaded file is streamed to the home folder, read there in a process of its own, one file at a
time, and always removed: only its text is kept. Shared collections are the operator's; these routes
only read them. Knows files and limits; knows no format.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request

from app.service import Service
from app.web.auth.identity import user_of
from app.web.chat.feedback_api import in_bounded_threadpool
from app.web.chat.uploads import private_folder, receive
from engine.messages import require_text
from feedback_store.documents.library import MAX_DOCUMENT_NAME_CHARS, Collection
from feedback_store.documents.reading import MAX_FILE_BYTES
from feedback_store.documents.retrieval import FOUND, find_passages, passage_row

DOCUMENTS_PATH = "/api/documents"
MAX_UPLOAD_BYTES = MAX_FILE_BYTES
READ_AT_ONCE = 1  # files; reading one takes a processor


def documents_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix=DOCUMENTS_PATH, tags=["documents"])
    library = service.workspace.documents
    limit = service.workspace.settings.max_message_chars
    reading = CapacityLimiter(READ_AT_ONCE)

    @router.get("")
    @in_bounded_threadpool
    def documents(request: Request) -> dict[str, Any]:
        """List the documents of the person and the shared ones, by collection and name."""
        own, shared = library.documents(user_of(request.session)), library.documents(None)
        return {
            "own": [each.as_dict() for each in own],
            "shared": [each.as_dict() for each in shared],
            "max_bytes": MAX_UPLOAD_BYTES,
        }

    @router.post("")
    async def add(
        request: Request,
        collection: str = Query(max_length=MAX_DOCUMENT_NAME_CHARS),
        name: str = Query(max_length=MAX_DOCUMENT_NAME_CHARS),
    ) -> dict[str, Any]:
        """Read a file, the request's body, into one of the person's collections.

        One of the same name there is replaced. The name's ending says what kind of file it is.
        """
        target = Collection(collection, user_of(request.session))
        with private_folder(service.workspace.home.imports) as own:
            file = own / "document"
            await receive(request, file)
            added = await run_sync(partial(library.add, target, file, name), limiter=reading)
        return added.as_dict()

    @router.delete("/{document_id}")
    @in_bounded_threadpool
    def remove(document_id: str, request: Request) -> dict[str, str]:
        """Remove a document of the person's, with its index."""
        library.remove(user_of(request.session), document_id)
        return {"status": "removed"}

    @router.get("/search")
    @in_bounded_threadpool
    def search(
        request: Request,
        question: str,
        collection: str = Query(max_length=MAX_DOCUMENT_NAME_CHARS),
        shared: bool = False,
        count: int = Query(default=FOUND, ge=1, le=100),
    ) -> dict[str, Any]:
        """Find the passages from which a question would be answered, the best first."""
        require_text(question, what="question", limit_chars=limit)
        asked = Collection(collection, None if shared else user_of(request.session))
        found = find_passages(library, asked, question, count)
        return {"passages": list(map(passage_row, found))}

    return router
