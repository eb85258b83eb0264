"""What is read of a file: its text by pages and headings, or one sentence of refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InvalidInput
from feedback_store.documents.passages import PASSAGE_BYTES, cut_into_passages
from feedback_store.documents.sections import read_sections
from tests.support.documents import write_blank_pdf, write_docx, write_pdf


def read(file: Path, name: str = "") -> list[tuple[dict[str, object], str]]:
    return [(s.metadata, s.page_content) for s in read_sections(file, name or file.name)]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_a_pdf_is_read_by_pages(tmp_path: Path) -> None:
    file = write_pdf(tmp_path / "a.pdf", ["The pump is red.", "", "The valve is blue."])
    assert read(file) == [({"page": 1}, "The pump is red."), ({"page": 3}, "The valve is blue.")]


def test_a_word_file_is_read_by_headings(tmp_path: Path) -> None:
    file = write_docx(
        tmp_path / "a.docx", [("Heading1", "Leave"), ("", "Thirty days."), ("Heading2", "Sick")]
    )
    assert read(file)[0] == ({"heading": "Leave"}, "Thirty days.")


def test_markdown_and_html_say_under_which_headings_a_text_stands(tmp_path: Path) -> None:
    expected = [({"heading": "House"}, "Two floors."), ({"heading": "House › Roof"}, "Slate.")]
    markdown = "# House\n\nTwo floors.\n\n## Roof\n\nSlate.\n"
    html = (
        "<html><head><title>x</title><style>p {}</style></head><body><h1>House</h1>"
        "<script>steal()</script><p>Two <b>floors</b>.</p><h2>Roof</h2><p>Slate.</p></body></html>"
    )
    assert read(written(tmp_path, "a.md", markdown)) == expected
    found = read(written(tmp_path, "a.html", html))
    assert [(place, text.replace("*", "")) for place, text in found] == expected


def test_a_row_of_a_table_is_understood_without_its_head(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "City;Height\nRome;21\nOslo;23\n")
    assert read(file) == [({}, "City: Rome; Height: 21\nCity: Oslo; Height: 23")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_chinese_text_is_read_in_the_encodings_it_comes_in(tmp_path: Path, encoding: str) -> None:
    text = "员工每年有二十天年假。未用完的可以顺延。"
    assert read(written(tmp_path, "a.txt", text.encode(encoding))) == [({}, text)]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.exe", b"MZ", "must end in one of"),
        ("a.txt", b"%PDF-1.4 and so on", "by its content it is a PDF file"),
        ("a.md", b"PK\x03\x04", "by its content it is a zip"),
        ("a.pdf", b"plain words", "it is no PDF file"),
        ("a.pdf", b"%PDF-1.4\n broken", "is damaged|has no text"),
        ("a.docx", b"plain words", "it is no Word file"),
        ("a.txt", bytes(range(256)) * 20, "no text"),
        ("a.txt", bytes(1000), "its bytes are no text"),
        ("a.txt", "Größe".encode("latin-1") * 9, "no text in UTF-8"),
        ("a.txt", b"   \n\n ", "has no text"),
        ("a.csv", b"", "has no text"),
        ("a.html", b"<div>" * 60_000 + b"deep", "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        read_sections(written(tmp_path, name, content), name)
    assert str(refused.value).startswith(name)


def test_an_encrypted_pdf_and_a_scan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="encrypted"):
        read_sections(write_blank_pdf(tmp_path / "a.pdf", 2, "secret"), "a.pdf")
    with pytest.raises(InvalidInput, match="a scan needs text recognition"):
        read_sections(write_blank_pdf(tmp_path / "b.pdf", 2_000), "b.pdf")


def test_passages_end_with_sentences_in_both_languages(tmp_path: Path) -> None:
    english = "The engine reads a page and then it writes another one. " * 60
    chinese = "引擎读取一页文字然后写出另一页文字。" * 100
    for text, end in ((english, "."), (chinese, "。")):
        passages = cut_into_passages(read_sections(written(tmp_path, "a.txt", text), "a.txt"))
        assert len(passages) > 2
        for passage in passages:
            assert len(passage.page_content.encode()) <= PASSAGE_BYTES
            assert passage.page_content.endswith(end)
        joined = "".join(p.page_content for p in passages)
        assert joined.replace(" ", "") == text.replace(" ", "")


def test_a_word_longer_than_a_passage_is_cut_and_nothing_is_lost(tmp_path: Path) -> None:
    text = "x" * 3_500
    passages = cut_into_passages(read_sections(written(tmp_path, "a.txt", text), "a.txt"))
    assert [len(p.page_content) for p in passages] == [1000, 1000, 1000, 500]
