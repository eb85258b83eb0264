"""Vectors of passages: computed once for each document, kept in its folder, gone with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InvalidInput
from feedback_store.documents.library import Collection, Library, open_library
from feedback_store.documents.retrieval import find_passages
from feedback_store.documents.vectors import VectorArray, cosines, read_vectors
from tests.feedback_store.documents.test_library import text_file
from tests.support.documents import read_in_this_process

ZOO = Collection("Zoo", "ann")
MEANINGS = ("rest", "food")  # the dimensions of the double's vectors
MEANT = {"rests": 0, "slumbers": 0, "naps": 0, "lies": 0, "nods": 0, "eats": 1, "grazes": 1}


@dataclass
class FakeEmbedder:
    """An embedding model that knows what a few verbs mean."""

    digest: str = "sha256:0123456789ab"
    asked: list[str] = field(default_factory=list)  # every passage that was embedded

    def embed_question(self, question: str) -> VectorArray:
        vector = np.full((1, len(MEANINGS)), 0.1, dtype=np.float32)
        for word in question.lower().strip(".?").split():
            if word in MEANT:
                vector[0, MEANT[word]] += 1
        return vector / np.linalg.norm(vector)

    def embed_passages(self, texts: Sequence[str]) -> VectorArray:
        self.asked += [text.strip() for text in texts]
        return np.concatenate([self.embed_question(text.strip()) for text in texts])


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Read files in this process."""
    with read_in_this_process():
        yield


def put(library: Library, folder: Path, name: str, text: str) -> str:
    return library.add(ZOO, text_file(folder, name, text), name).id


def files_of_vectors(folder: Path) -> list[Path]:
    return list((folder / "documents").rglob("*.npy"))


def test_what_means_the_same_comes_before_what_has_the_same_words(tmp_path: Path) -> None:
    """Four texts of one length share "otter" with the question, so that words and n-grams rank them
    in their order; the vectors rank the first one last.

    It has 2/61 + 1/64 = 0.0484 in the fusion, and the second one 2/62 + 1/61 = 0.0487.
    """
    library = Library(tmp_path / "documents", FakeEmbedder())
    for name, verb in (("a", "eats"), ("b", "naps"), ("c", "lies"), ("d", "nods")):
        put(library, tmp_path, f"{name}.txt", f"Otter {verb}.")
    (best, *_) = find_passages(library, ZOO, "Otter slumbers?")
    assert (best.page_content, best.metadata["score"]) == ("Otter naps.", 0.04865)
    (without, *_) = find_passages(Library(tmp_path / "documents"), ZOO, "Otter slumbers?")
    assert (without.page_content, without.metadata["score"]) == ("Otter eats.", 0.03279)


def test_vectors_find_nothing_where_no_word_fits(tmp_path: Path) -> None:
    library = Library(tmp_path / "documents", FakeEmbedder())
    put(library, tmp_path, "a.txt", "Otter naps.")
    assert find_passages(library, ZOO, "Slumbers?") == []


def test_each_passage_is_embedded_once(tmp_path: Path) -> None:
    embedder = FakeEmbedder()
    library = Library(tmp_path / "documents", embedder)
    put(library, tmp_path, "a.txt", "Otter eats.")
    assert embedder.asked == ["Otter eats."]  # before anybody asks
    put(library, tmp_path, "b.txt", "Zebra grazes.")
    find_passages(library, ZOO, "otter")
    again = Library(tmp_path / "documents", embedder)  # as after a restart
    find_passages(again, ZOO, "otter")
    again.move("ann", "eve")
    assert find_passages(again, Collection("Zoo", "eve"), "otter")
    assert embedder.asked == ["Otter eats.", "Zebra grazes."]
    assert again.documents("ann") == []


def test_documents_of_before_and_of_another_model_are_embedded_when_asked(tmp_path: Path) -> None:
    put(Library(tmp_path / "documents"), tmp_path, "a.txt", "Otter eats.")
    for digest in ("sha256:aaaaaaaaaaaa", "sha256:bbbbbbbbbbbb"):
        embedder = FakeEmbedder(digest)
        assert find_passages(Library(tmp_path / "documents", embedder), ZOO, "otter")
        assert embedder.asked == ["Otter eats."]
        (file,) = files_of_vectors(tmp_path)
        assert file.name == f"vectors-{digest[-12:]}.npy"


def test_vectors_are_gone_with_their_document(tmp_path: Path) -> None:
    library = Library(tmp_path / "documents", FakeEmbedder())
    first = put(library, tmp_path, "a.txt", "Otter eats.")
    put(library, tmp_path, "b.txt", "Zebra grazes.")
    assert len(files_of_vectors(tmp_path)) == 2
    library.remove("ann", first)
    assert len(files_of_vectors(tmp_path)) == 1
    library.forget("ann")
    assert list((tmp_path / "documents").rglob("*")) == []


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array"])
def test_a_damaged_file_is_computed_anew(tmp_path: Path, damage: bytes) -> None:
    put(Library(tmp_path / "documents", FakeEmbedder()), tmp_path, "a.txt", "Otter eats.")
    (file,) = files_of_vectors(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert find_passages(Library(tmp_path / "documents", FakeEmbedder()), ZOO, "otter")
    assert file.read_bytes() == whole


def test_a_folder_that_is_removed_meanwhile_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "gone", FakeEmbedder(), ["Otter eats."])
    assert not (tmp_path / "gone").exists()


def test_a_cosine_is_the_product_of_two_vectors_of_length_1() -> None:
    """(1, 0.1) and (0.1, 1) have the length sqrt(1.01), and 0.2 as their product."""
    embedder = FakeEmbedder()
    rest = np.array([[1.0, 0.1], [0.1, 1.0]], dtype=np.float32) / np.sqrt(np.float32(1.01))
    asked = embedder.embed_question("rests")
    assert asked[0] == pytest.approx(np.array([1.1, 0.1]) / np.sqrt(1.22), abs=1e-6)
    expected = np.array([1.11, 0.21]) / np.sqrt(1.22 * 1.01)
    assert cosines([rest[:1], rest[1:]], embedder, "rests") == pytest.approx(expected, abs=1e-6)


def test_a_folder_without_a_model_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no config\.json"):
        open_library(tmp_path / "documents", tmp_path)
    assert open_library(tmp_path / "documents", None).embedder is None
