"""Files that a person might put into a collection, and a library that reads them quickly."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pypdf import PdfWriter

from benchmarks.pdf_files import pdf_of
from feedback_store.documents import library, reading
from feedback_store.documents.reading import TextCounts

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships'
    '+xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
    'officedocument.wordprocessingml.document.main+xml"/></Types>'
)
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
    'relationships/officeDocument" Target="word/document.xml"/></Relationships>'
)


def write_pdf(file: Path, pages: list[str]) -> Path:
    """A PDF with a line of text on each page."""
    file.write_bytes(pdf_of([[text] for text in pages]))
    return file


def write_blank_pdf(file: Path, pages: int, password: str | None = None) -> Path:
    """A PDF of empty pages, as a scanner makes them."""
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(100, 100)
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(file)
    return file


def write_docx(file: Path, paragraphs: list[tuple[str, str]]) -> Path:
    """A Word file of (style, text): style "Heading1", or "" for a paragraph."""
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for style, text in paragraphs
    )
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", CONTENT_TYPES)
        archive.writestr("_rels/.rels", RELATIONS)
        archive.writestr("word/document.xml", document)
    return file


@contextmanager
def read_in_this_process() -> Iterator[None]:
    """Let libraries read files here: a process takes seconds to start."""

    def index_here(file: Path, name: str, folder: Path) -> TextCounts:
        return TextCounts(**reading._write_index(file, name, folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "index_file", index_here)
        yield
