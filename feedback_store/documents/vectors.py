"""The vectors of a document's passages, in a file of the document's own folder.

They are computed once by each embedding model, are gone with the folder, and move with it. A file
that is missing or damaged is computed anew. Knows folders and numbers; knows no model's inside.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

VectorArray = npt.NDArray[np.float32]  # (passages, dimensions), of length 1 each


class Embedder(Protocol):
    """A model that gives texts vectors of length 1."""

    @property
    def digest(self) -> str:
        """A digest of what the vectors depend on."""
        ...

    def embed_question(self, question: str) -> VectorArray:
        """Return the vector of a question, (1, dimensions)."""
        ...

    def embed_passages(self, texts: Sequence[str]) -> VectorArray:
        """Return the vectors of passages, (texts, dimensions)."""
        ...


def read_vectors(folder: Path, embedder: Embedder, texts: Sequence[str]) -> VectorArray:
    """Return the vectors of a document's passages, from its folder or computed and kept there.

    Raises `FileNotFoundError` where the document was removed meanwhile.
    """
    file = folder / f"vectors-{embedder.digest[-12:]}.npy"
    with suppress(OSError, ValueError, EOFError):
        stored: VectorArray = np.load(file, allow_pickle=False).astype(np.float32)
        if stored.ndim == 2 and len(stored) == len(texts):
            return stored
    vectors = embedder.embed_passages(texts)
    for other in folder.glob("vectors-*.npy"):  # another model's
        other.unlink(missing_ok=True)
    temporary = folder / f".tmp-{secrets.token_hex(8)}"  # not made anew if the folder is gone
    with temporary.open("xb") as stream:
        np.save(stream, vectors.astype(np.float16), allow_pickle=False)
    temporary.replace(file)
    return vectors


def cosines(vectors: Sequence[VectorArray], embedder: Embedder, question: str) -> VectorArray:
    """Return the cosine of a question to every passage of documents, in their order."""
    (asked,) = embedder.embed_question(question)
    similarity: VectorArray = np.concatenate(list(vectors)) @ asked
    return similarity
