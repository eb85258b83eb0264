"""Finds the passages that a question is about.

Rankings by words, by character n-grams and, where there is an embedding model, by its vectors are
fused by reciprocal rank (Cormack, Clarke and Buettcher 2009). Passages that have hardly anything of
the question are left out, so that nothing is found where nothing is said. Knows the library; knows
nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.prompts.terms import tokens
from feedback_store.documents.bm25 import PassageScores, bm25
from feedback_store.documents.library import Collection, Library, OpenDocument
from feedback_store.documents.term_index import character_grams
from feedback_store.documents.vectors import VectorArray, cosines

if TYPE_CHECKING:
    from langchain_core.documents import Document

FOUND = 5  # passages
RRF_CONSTANT = 60  # Cormack et al. 2009
CANDIDATES = 100  # of each ranking; what lies lower adds next to nothing
# What a passage must have of a question's weight, in words or, where words are inflected otherwise,
# in character n-grams; measured by `python -m benchmarks.retrieval`
MIN_WORDS, MIN_GRAMS = 0.3, 0.45


def find_passages(
    library: Library, collection: Collection, question: str, count: int = FOUND
) -> list[Document]:
    """Return the passages that fit a question best, the best first; none if none fits."""
    documents = library.in_collection(collection)
    if not documents:
        return []
    by_words, words = bm25([d.words for d in documents], list(tokens(question)))
    by_grams, grams = bm25([d.grams for d in documents], list(character_grams(question)))
    rankings = [_ranking(by_words), _ranking(by_grams)]
    vectors = [d.vectors for d in documents if d.vectors is not None]
    if library.embedder is not None and len(vectors) == len(documents):
        rankings.append(_ranking(cosines(vectors, library.embedder, question)))
    fused = fuse_rankings(rankings, len(by_words))
    fused[(words < MIN_WORDS) & (grams < MIN_GRAMS)] = 0
    found = []
    for at in map(int, _ranking(fused)[:count]):
        with suppress(FileNotFoundError):  # another process has just removed the document
            found.append(_passage(documents, at, round(float(fused[at]), 5)))
    return found


def passage_row(passage: Document) -> dict[str, Any]:
    """Return a passage as programs read it, JSON-ready."""
    return {"text": passage.page_content, **passage.metadata}


def fuse_rankings(rankings: Sequence[npt.NDArray[np.intp]], passages: int) -> PassageScores:
    """Return the sum over rankings of 1 / (60 + rank), for each passage."""
    fused = np.zeros(passages)
    for ranking in rankings:
        fused[ranking] += 1 / (RRF_CONSTANT + 1 + np.arange(len(ranking)))
    return fused


def _ranking(scores: PassageScores | VectorArray) -> npt.NDArray[np.intp]:
    """The numbers of the best passages that have a score, the best first; equals in their order."""
    best = np.argsort(-scores, kind="stable")[:CANDIDATES]
    return best[scores[best] > 0]


def _passage(documents: Sequence[OpenDocument], at: int, score: float) -> Document:
    for document in documents:
        if at < len(document.offsets):
            passage = document.passage(at)
            passage.metadata["score"] = score
            return passage
        at -= len(document.offsets)
    raise IndexError(at)
