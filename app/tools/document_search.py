"""Searches a person's documents and those that the operator shares."""

from __future__ import annotations

from operator import itemgetter

from app.grounding import ENGLISH, SHOWN_PASSAGES, place_of
from engine.messages import require_text
from feedback_store.documents.library import Library
from feedback_store.documents.retrieval import find_passages

MAX_QUESTION_CHARS = 1_000
NOTHING_FITS = "Nothing in the documents fits."


def search_own_documents(library: Library, user_id: str, question: str) -> str:
    """Return the passages that fit a question best, each with its document, the best first."""
    require_text(question, what="question", limit_chars=MAX_QUESTION_CHARS)
    stored = [*library.documents(user_id), *library.documents(None)]
    collections = dict.fromkeys(document.collection for document in stored)
    found = [
        (passage.metadata["score"], passage)
        for collection in collections
        for passage in find_passages(library, collection, question, SHOWN_PASSAGES)
    ]
    found.sort(key=itemgetter(0), reverse=True)
    passages = [passage for _, passage in found[:SHOWN_PASSAGES]]
    written = [f"{place_of(each, ENGLISH)}:\n{each.page_content}" for each in passages]
    return "\n\n".join(written) or NOTHING_FITS
