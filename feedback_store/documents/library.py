"""The library: collections of documents, each collection a person's own or shared by the operator.

A document is a published folder (`engine.storage`) that never changes: its passages, the counts of
their terms, and a manifest with its name and collection; beside them the passages' vectors, where
there is an embedding model. So adding one touches no other, a crash leaves it whole or absent, and
removing its folder removes all there is of it; the file itself is not kept. A collection is the
documents with its name. Knows folders; knows nothing of questions.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from engine.embedder import TextEmbedder
from engine.errors import Conflict, InvalidInput, UnknownId
from engine.messages import require_text
from engine.storage import (
    digest_file,
    digest_json,
    find_digest,
    folder_of,
    list_digests,
    move_published,
    publish,
    read_manifest,
    remove_folder,
    sweep,
)
from feedback_store.documents.reading import GRAMS, PASSAGES, WORDS, TextCounts, index_file
from feedback_store.documents.term_index import TermIndex
from feedback_store.documents.vectors import Embedder, VectorArray, read_vectors

if TYPE_CHECKING:
    from langchain_core.documents import Document

FORMAT = "burnish-document/1"
SHARED_FOLDER = "shared"
MAX_DOCUMENT_NAME_CHARS = 120
MAX_OWN_DOCUMENTS = 500  # of one person
MAX_OWN_CHARS = 50_000_000
MAX_OPEN_CHARS = 20_000_000  # of documents in memory; their indices take some 10 bytes each


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents by a name. Without a `person` it is the operator's, for everybody."""

    name: str
    person: str | None = None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """One document of the library, without its text."""

    id: str
    name: str
    collection: Collection
    passages: int
    characters: int
    bytes: int
    added_at: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as programs read it, JSON-ready; whose it is, the reader knows."""
        return {**asdict(self), "collection": self.collection.name}


@dataclass(frozen=True, slots=True)
class OpenDocument:
    """A document's indices, in memory, and the way to its passages."""

    stored: StoredDocument
    words: TermIndex
    grams: TermIndex
    folder: Path
    offsets: tuple[int, ...]  # of the passages in their file, in bytes
    vectors: VectorArray | None = None  # of the passages, where there is an embedding model

    def __iter__(self) -> Iterator[Document]:
        return map(self.passage, range(len(self.offsets)))

    def passage(self, number: int) -> Document:
        """Return one passage; its metadata say where it stands."""
        from langchain_core.documents import Document  # slow to import, and listing needs none

        with (self.folder / PASSAGES).open("rb") as stream:
            stream.seek(self.offsets[number])
            row = json.loads(stream.readline())
        text = row.pop("text")
        source = {"source": self.stored.name, "document": self.stored.id, "passage": number}
        return Document(text, metadata={**source, **row})


def open_library(root: Path, embedding_model: Path | None) -> Library:
    """Return the documents under a folder, searched by an embedding model's vectors too if named.

    Raises `InvalidInput` for a folder without such a model.
    """
    return Library(root, None if embedding_model is None else TextEmbedder(embedding_model))


class Library:
    """The documents under one folder."""

    def __init__(self, root: Path, embedder: Embedder | None = None) -> None:
        self.embedder = embedder
        self._root = root
        self._opened = _OpenDocuments(embedder)

    def add(self, collection: Collection, file: Path, name: str) -> StoredDocument:
        """Read a file into a collection; one of the same name there is replaced.

        Raises `InvalidInput` for a file that cannot be read within the limits, and where the person
        has too many documents already; `Conflict` where all was forgotten meanwhile.
        """
        name = _plain_name(PurePosixPath(PureWindowsPath(name).name).name, "document's name")
        title = _plain_name(collection.name, "collection's name")
        collection = Collection(title, collection.person)
        own = self.documents(collection.person)
        before = [d for d in own if d.name == name and d.collection == collection]
        _require_room(collection, [d for d in own if d not in before])
        folder, size = self._folder(collection.person), file.stat().st_size
        sweep(folder)

        def fill(temporary: Path) -> dict[str, Any]:
            counts: TextCounts = index_file(file, name, temporary)
            return {
                "kind": FORMAT,
                "name": name,
                "collection": title,
                "bytes": size,
                "content": digest_file(file),
                "added_at": time.time(),
                **asdict(counts),
            }

        try:
            digest = publish(folder, fill)
        except FileNotFoundError:
            raise Conflict("these documents were just deleted; add the file again") from None
        for replaced in before:
            self.remove(collection.person, replaced.id)
        stored = _read_document(folder, digest, collection.person)
        if self.embedder is not None:  # the first question need not wait for its vectors
            with suppress(FileNotFoundError):  # it was removed meanwhile
                self._opened.get(folder, stored)
        return stored

    def documents(self, person: str | None) -> list[StoredDocument]:
        """Return the documents of a person, or the shared ones, by collection and name."""
        folder = self._folder(person)
        found = []
        for digest in list_digests(folder):
            try:
                found.append(_read_document(folder, digest, person))
            except UnknownId:  # another process removes it
                continue
        return sorted(found, key=lambda d: (d.collection.name.casefold(), d.name.casefold()))

    def in_collection(self, collection: Collection) -> list[OpenDocument]:
        """Return the documents of a collection with their indices."""
        folder = self._folder(collection.person)
        opened = []
        for stored in self.documents(collection.person):
            if stored.collection == collection:
                try:
                    opened.append(self._opened.get(folder, stored))
                except FileNotFoundError:
                    continue
        return opened

    def copy_of(self, person: str) -> list[dict[str, Any]]:
        """Return everything that is kept of a person's documents, JSON-ready."""
        folder = self._folder(person)
        return [
            {**stored.as_dict(), "text": [p.page_content for p in _open_document(folder, stored)]}
            for stored in self.documents(person)
        ]

    def find(self, person: str | None, document_id: str) -> StoredDocument:
        """Return a document by its id or the beginning of it; raises `UnknownId`."""
        folder = self._folder(person)
        return _read_document(folder, find_digest(folder, document_id), person)

    def remove(self, person: str | None, document_id: str) -> None:
        """Remove a document; raises `UnknownId` for one that is not this person's."""
        if not remove_folder(folder_of(self._folder(person), document_id)):
            raise UnknownId(f"no document {document_id[:80]!r}")

    def move(self, old: str, new: str) -> None:
        """Give all documents of a person, with their indices, to another.

        Where both have one of the same name in the same collection, the newer one stays, as if one
        person had added both. The limits of `add` do not apply.
        """
        stays: dict[tuple[str, str], StoredDocument] = {}
        both = [*self.documents(old), *self.documents(new)] if old != new else []
        for stored in sorted(both, key=lambda d: d.added_at):
            replaced = stays.get((stored.collection.name, stored.name))
            stays[stored.collection.name, stored.name] = stored
            if replaced is not None:
                self.remove(replaced.collection.person, replaced.id)
        for stored in stays.values():
            if stored.collection.person == old:
                move_published(self._folder(old), self._folder(new), stored.id)

    def forget(self, person: str) -> int:
        """Remove everything of a person; returns how many documents there were."""
        folder = self._folder(person)
        count = len(list_digests(folder))
        remove_folder(folder)
        return count

    def _folder(self, person: str | None) -> Path:
        """The folder of a person's documents, named by a digest: no id can lead elsewhere."""
        if person is None:
            return self._root / SHARED_FOLDER
        return self._root / digest_json(["documents", person]).removeprefix("sha256:")


def _require_room(collection: Collection, own: list[StoredDocument]) -> None:
    if collection.person is None:
        return
    if len(own) >= MAX_OWN_DOCUMENTS:
        raise InvalidInput(f"you have {MAX_OWN_DOCUMENTS} documents already; remove one first")
    if sum(document.characters for document in own) > MAX_OWN_CHARS:
        limit = f"{MAX_OWN_CHARS:,}"
        raise InvalidInput(f"your documents have {limit} characters already; remove one first")


def _plain_name(text: str, what: str) -> str:
    """A name in one line."""
    return " ".join(require_text(text, what=what, limit_chars=MAX_DOCUMENT_NAME_CHARS).split())


def _read_document(folder: Path, digest: str, person: str | None) -> StoredDocument:
    made = _manifest(folder_of(folder, digest))
    return StoredDocument(
        digest,
        made["name"],
        Collection(made["collection"], person),
        made["passages"],
        made["characters"],
        made["bytes"],
        made["added_at"],
    )


@lru_cache(maxsize=10_000)  # one that is gone is no longer listed, so never asked for
def _manifest(folder: Path) -> dict[str, Any]:
    return read_manifest(folder)


class _OpenDocuments:
    """The documents that were asked last, in memory up to a limit. For several threads."""

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._documents: OrderedDict[Path, OpenDocument] = OrderedDict()
        self._characters = 0

    def get(self, folder: Path, stored: StoredDocument) -> OpenDocument:
        """Return a document, from the disk where it is not in memory."""
        place = folder_of(folder, stored.id)  # another one once the document has moved
        with self._lock:
            if (known := self._documents.get(place)) is not None:
                self._documents.move_to_end(place)
                return known
        opened = _open_document(folder, stored, self._embedder)
        with self._lock:
            if place not in self._documents:
                self._documents[place] = opened
                self._characters += stored.characters
            while self._characters > MAX_OPEN_CHARS and len(self._documents) > 1:
                _, oldest = self._documents.popitem(last=False)
                self._characters -= oldest.stored.characters
        return opened


def _open_document(
    folder: Path, stored: StoredDocument, embedder: Embedder | None = None
) -> OpenDocument:
    place = folder_of(folder, stored.id)
    offsets, at = [], 0
    with (place / PASSAGES).open("rb") as stream:
        for line in stream:
            offsets.append(at)
            at += len(line)
    words, grams = TermIndex.load(place / WORDS), TermIndex.load(place / GRAMS)
    opened = OpenDocument(stored, words, grams, place, tuple(offsets))
    if embedder is None:
        return opened
    from feedback_store.documents.passages import searched_text  # with langchain, slow to import

    texts = [searched_text(passage) for passage in opened]
    return replace(opened, vectors=read_vectors(place, embedder, texts))
