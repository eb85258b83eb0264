"""The library: what is added is found, what is removed is gone; bombs and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.retrievers import BaseRetriever

from engine.errors import InvalidInput, UnknownId
from feedback_store.documents import library as library_module
from feedback_store.documents import reading
from feedback_store.documents.library import Collection, Library
from feedback_store.documents.retrieval import find_passages
from feedback_store.documents.retriever import CollectionRetriever
from tests.support.documents import read_in_this_process, write_pdf
from tests.support.waiting import wait_until

HANDBOOK = Collection("Handbook", "ann")
POLICY = (
    "# Leave\n\nEmployees have thirty days of vacation a year.\n\n"
    "## 年假\n\n员工每年有三十天年假，未用完的可以顺延到次年三月。\n\n"
    "# Travel\n\nTrains are booked in second class; flights need the director's approval.\n"
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library with two documents of one person, and one for everybody. Not to be changed."""
    folder = tmp_path_factory.mktemp("library")
    shelf = Library(folder / "documents")
    policy = folder / "policy.md"
    policy.write_text(POLICY)
    manual = write_pdf(folder / "manual.pdf", ["Oil the pump.", "Close the blue valve first."])
    with read_in_this_process():
        shelf.add(HANDBOOK, policy, "policy.md")
        shelf.add(HANDBOOK, manual, "C:\\files\\manual.pdf")
        shelf.add(Collection("House rules"), policy, "rules.md")
    return shelf


@pytest.fixture
def quick() -> Iterator[None]:
    """Read files in this process."""
    with read_in_this_process():
        yield


def text_file(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_the_passage_that_answers_is_found_with_its_place(shelf: Library) -> None:
    (best, *_) = find_passages(shelf, HANDBOOK, "Which valve do I close first?")
    assert best.page_content == "Close the blue valve first."
    assert (best.metadata["source"], best.metadata["page"]) == ("manual.pdf", 2)
    (best, *_) = find_passages(shelf, HANDBOOK, "How many vacation days are there?")
    assert best.metadata["heading"] == "Leave"


def test_a_chinese_question_finds_the_chinese_passage(shelf: Library) -> None:
    (best, *_) = find_passages(shelf, HANDBOOK, "年假可以顺延吗？")
    assert best.metadata["heading"] == "Leave › 年假"


@pytest.mark.parametrize("question", ["Who won the football cup?", "珠穆朗玛峰有多高？", "???", ""])
def test_nothing_is_found_where_nothing_is_said(shelf: Library, question: str) -> None:
    assert find_passages(shelf, HANDBOOK, question) == []


def test_it_is_a_retriever_of_langchain(shelf: Library) -> None:
    retriever: BaseRetriever = CollectionRetriever(library=shelf, collection=HANDBOOK, k=1)
    (found,) = retriever.invoke("approval of flights")
    assert "director's approval" in found.page_content


def test_collections_of_others_are_others(shelf: Library) -> None:
    assert [d.name for d in shelf.documents("ann")] == ["manual.pdf", "policy.md"]
    assert shelf.documents("ben") == []
    assert find_passages(shelf, Collection("Handbook", "ben"), "vacation days") == []
    assert [d.name for d in shelf.documents(None)] == ["rules.md"]
    with pytest.raises(UnknownId):
        shelf.remove("ben", shelf.documents("ann")[0].id)
    for name in ("../ann", "/etc/passwd", "sha256:" + "0" * 64, "\0"):
        with pytest.raises(UnknownId):
            shelf.remove("ann", name)


@pytest.mark.usefixtures("quick")
def test_a_document_of_the_same_name_replaces_the_older_one(tmp_path: Path) -> None:
    shelf = Library(tmp_path / "documents")
    shelf.add(HANDBOOK, text_file(tmp_path, "a.txt", "The gate closes at noon."), "a.txt")
    assert find_passages(shelf, HANDBOOK, "When does the gate close?")
    shelf.add(HANDBOOK, text_file(tmp_path, "a.txt", "The gate closes at midnight."), "a.txt")
    (found,) = find_passages(shelf, HANDBOOK, "When does the gate close?")
    assert found.page_content == "The gate closes at midnight."


@pytest.mark.usefixtures("quick")
def test_what_is_removed_or_forgotten_leaves_nothing(tmp_path: Path) -> None:
    shelf = Library(tmp_path / "documents")
    kept = text_file(tmp_path, "kept.txt", "Ben grows tomatoes.")
    added = shelf.add(HANDBOOK, text_file(tmp_path, "a.txt", "The canary sings."), "a.txt")
    shelf.add(HANDBOOK, text_file(tmp_path, "b.txt", "The canary sleeps."), "b.txt")
    shelf.add(Collection("Garden", "ben"), kept, "kept.txt")
    shelf.remove("ann", added.id)
    assert [d.page_content for d in find_passages(shelf, HANDBOOK, "canary")] == [
        "The canary sleeps."
    ]
    assert shelf.forget("ann") == 1
    assert shelf.forget("ann") == 0
    left = [f.read_bytes() for f in (tmp_path / "documents").rglob("*") if f.is_file()]
    assert not [content for content in left if b"canary" in content]
    assert find_passages(shelf, Collection("Garden", "ben"), "tomatoes")


@pytest.mark.usefixtures("quick")
def test_what_moves_is_found_and_removed_by_its_new_person_alone(tmp_path: Path) -> None:
    shelf, garden = Library(tmp_path / "documents"), Collection("Garden", "ben")
    sings = shelf.add(HANDBOOK, text_file(tmp_path, "a.txt", "The canary sings."), "a.txt")
    shelf.add(garden, text_file(tmp_path, "b.txt", "Ben grows tomatoes."), "b.txt")
    assert find_passages(shelf, HANDBOOK, "canary")  # its index is in memory
    shelf.move("ann", "eve")
    assert shelf.documents("ann") == []
    assert find_passages(shelf, HANDBOOK, "canary") == []
    handbook = Collection("Handbook", "eve")
    (found,) = find_passages(shelf, handbook, "canary")
    assert found.page_content == "The canary sings."
    assert [d.collection for d in shelf.documents("eve")] == [handbook]
    assert find_passages(shelf, garden, "tomatoes")
    with pytest.raises(UnknownId):
        shelf.remove("ann", sings.id)
    assert shelf.forget("eve") == 1
    assert find_passages(shelf, handbook, "canary") == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("newer", ["ann", "eve"])
def test_the_newer_of_two_with_one_name_stays_when_they_meet(tmp_path: Path, newer: str) -> None:
    shelf = Library(tmp_path / "documents")
    for person in sorted(("ann", "eve"), key=lambda each: each == newer):
        file = text_file(tmp_path, "a.txt", f"The gate is {person}'s.")
        shelf.add(Collection("Handbook", person), file, "a.txt")
        shelf.add(Collection(person, person), file, "a.txt")  # in a collection of one alone
    for _ in range(2):  # the second move has nothing to do
        shelf.move("ann", "eve")
    shelf.move("eve", "eve")
    assert [d.collection.name for d in shelf.documents("eve")] == ["ann", "eve", "Handbook"]
    (found,) = find_passages(shelf, Collection("Handbook", "eve"), "the gate")
    assert found.page_content == f"The gate is {newer}'s."


@pytest.mark.usefixtures("quick")
def test_a_new_document_leaves_the_others_files_as_they_are(tmp_path: Path) -> None:
    shelf = Library(tmp_path / "documents")
    shelf.add(HANDBOOK, text_file(tmp_path, "a.txt", "The canary sings."), "a.txt")
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "documents").rglob("*") if f.is_file()}
    shelf.add(HANDBOOK, text_file(tmp_path, "b.txt", "The canary sleeps."), "b.txt")
    assert {f: f.stat().st_mtime_ns for f in before} == before


@pytest.mark.usefixtures("quick")
def test_a_person_has_a_limit_and_the_operator_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "MAX_OWN_DOCUMENTS", 1)
    shelf = Library(tmp_path / "documents")
    file = text_file(tmp_path, "a.txt", "The canary sings.")
    for collection in (Collection("All"), HANDBOOK):
        shelf.add(collection, file, "a.txt")
    shelf.add(HANDBOOK, file, "a.txt")  # in its own place
    shelf.add(Collection("All"), file, "b.txt")
    with pytest.raises(InvalidInput, match="1 documents already"):
        shelf.add(HANDBOOK, file, "b.txt")


@pytest.mark.parametrize("name", ["", " ", "a" * 200 + ".txt", "\0.txt"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    file = text_file(tmp_path, "a.txt", "words")
    with pytest.raises(InvalidInput):
        Library(tmp_path / "documents").add(HANDBOOK, file, name)
    with pytest.raises(InvalidInput):
        Library(tmp_path / "documents").add(Collection(name[:150], "ann"), file, name or "a.txt")


@pytest.mark.integration
def test_a_process_of_its_own_reads_the_same(shelf: Library, tmp_path: Path) -> None:
    other = Library(tmp_path / "documents")
    other.add(HANDBOOK, text_file(tmp_path, "policy.md", POLICY), "policy.md")
    (read,) = other.in_collection(HANDBOOK)
    _, here = shelf.in_collection(HANDBOOK)  # after manual.pdf
    assert [p.page_content for p in read] == [p.page_content for p in here]
    assert (read.words.terms, read.grams.terms) == (here.words.terms, here.grams.terms)


@pytest.mark.integration
def test_a_refused_file_leaves_nothing(tmp_path: Path) -> None:
    shelf = Library(tmp_path / "documents")
    with pytest.raises(InvalidInput, match=r"^a\.txt cannot be read: its bytes are no text"):
        shelf.add(HANDBOOK, text_file(tmp_path, "a.txt", "\0" * 999), "a.txt")
    assert not [f for f in (tmp_path / "documents").rglob("*") if f.is_file()]


def write_bomb(file: Path, elements: int) -> Path:
    """A Word file of a few kilobytes that unpacks to four bytes an element."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "<a>" + "<b/>" * elements + "</a>")
    return file


@pytest.mark.integration
def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    bomb = write_bomb(tmp_path / "a.docx", 15_000_000)
    with pytest.raises(InvalidInput, match="unpacks to more than 50 MB"):
        Library(tmp_path / "documents").add(HANDBOOK, bomb, "a.docx")


@pytest.mark.slow
def test_a_file_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    bomb = write_bomb(tmp_path / "a.docx", 10_000_000)
    with pytest.raises(InvalidInput, match=r"too much memory|too long"):
        Library(tmp_path / "documents").add(HANDBOOK, bomb, "a.docx")


@pytest.mark.integration
def test_a_file_or_a_text_that_is_too_large_is_refused_before_it_is_indexed(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with file.open("wb") as stream:
        stream.truncate(reading.MAX_FILE_BYTES + 1)
    with pytest.raises(InvalidInput, match="more than 50 MB"):
        Library(tmp_path / "documents").add(HANDBOOK, file, "a.txt")
    file.write_text("many words " * 500_000)
    with pytest.raises(InvalidInput, match="more than 5,000,000 characters"):
        Library(tmp_path / "documents").add(HANDBOOK, file, "a.txt")


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_whole_documents_alone(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from feedback_store.documents.library import *\n"
        "shelf = Library(Path(sys.argv[1]))\n"
        "print('begun', flush=True)\n"
        "for n in range(99): shelf.add(Collection('All', 'ann'), Path(sys.argv[2]), f'{n}.md')\n"
    )
    root, file = tmp_path / "documents", text_file(tmp_path, "a.md", POLICY)
    shelf = Library(root)
    for round_ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(root), str(file)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: shelf.documents("ann"), seconds=60)
        time.sleep(0.3 * round_)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for document in shelf.documents("ann"):
            (opened,) = (
                d for d in shelf.in_collection(document.collection) if d.stored == document
            )
            assert len(list(opened)) == 3
        shelf.forget("ann")
