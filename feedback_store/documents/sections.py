"""Reads a file into sections of text: a page of a PDF, or what stands under a heading.

Word files and web pages become Markdown first, so that one splitter finds the headings of all.
Knows file formats; knows nothing of limits on time and memory, which the process that runs this has
(`feedback_store.documents.reading`).
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bs4 import BeautifulSoup
from langchain_core.documents import Document
from langchain_text_splitters import MarkdownHeaderTextSplitter

from engine.errors import InvalidInput

MAX_PDF_PAGES = 5_000
MAX_XML_BYTES = 50 * 2**20  # of a Word file, which is a zip; its pictures are not unpacked
# A letter is "normal", and a page of code has braces and pipes; what no text has are these
NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\ud800-\udfff]")
UNREADABLE_SHARE = 0.01  # of control characters, above which bytes are no text
COMMON_SHARE = 0.9  # of common characters; Chinese has 99%, German read as if it were, few
HEADINGS = [("#" * level, str(level)) for level in range(1, 7)]
BEGINS = {b"%PDF-": "a PDF file", b"PK\x03\x04": "a zip or Office file", b"\x7fELF": "a program"}
INVISIBLE_TAGS = ("script", "style", "template", "noscript", "nav", "svg", "head")


def read_sections(file: Path, name: str) -> list[Document]:
    """Return the sections of a file, in order, each with its "page" or "heading" where it has one.

    Raises `InvalidInput` for a file that is not what its name's ending says, is encrypted, damaged
    or has no text.
    """
    try:
        sections = [section for section in _read(file, name) if section.page_content.strip()]
    except InvalidInput as error:
        raise InvalidInput(f"{name} cannot be read: {error}") from error
    if not sections:
        raise InvalidInput(f"{name} has no text; a scan needs text recognition first")
    return sections


def _read(file: Path, name: str) -> list[Document]:
    ending = Path(name).suffix.lower()
    if ending not in SECTION_READERS:
        known = ", ".join(sorted(SECTION_READERS))
        raise InvalidInput(f"its name must end in one of {known}")
    try:
        return list(SECTION_READERS[ending](file))
    except RecursionError as error:
        raise InvalidInput("it is nested too deeply") from error


def _pdf(file: Path) -> Iterator[Document]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    if b"%PDF-" not in _beginning(file):
        raise InvalidInput("it is no PDF file")
    try:
        reader = PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidInput("it is encrypted; remove its password first")
        if len(reader.pages) > MAX_PDF_PAGES:
            raise InvalidInput(f"it has more than {MAX_PDF_PAGES} pages")
        for number, page in enumerate(reader.pages, start=1):
            yield Document(_clean(page.extract_text()).strip(), metadata={"page": number})
    except DependencyError as error:
        raise InvalidInput("it is encrypted; remove its password first") from error
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidInput("the PDF file is damaged") from error


def _docx(file: Path) -> Iterator[Document]:
    import mammoth

    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
    except (zipfile.BadZipFile, ValueError) as error:
        raise InvalidInput("it is no Word file, or it is damaged") from error
    if "word/document.xml" not in sizes:
        raise InvalidInput("it is no Word file")
    if sum(n for name, n in sizes.items() if name.endswith((".xml", ".rels"))) > MAX_XML_BYTES:
        raise InvalidInput(f"its text unpacks to more than {MAX_XML_BYTES // 2**20} MB")
    no_images = mammoth.images.img_element(lambda _image: {"src": ""})
    try:
        with file.open("rb") as stream:
            html = mammoth.convert_to_html(stream, convert_image=no_images).value
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # mammoth lets the errors of its parsers through
        raise InvalidInput("the Word file is damaged") from error
    yield from _of_html(html)


def _html(file: Path) -> Iterator[Document]:
    yield from _of_html(_text_of(file))


def _markdown(file: Path) -> Iterator[Document]:
    yield from _of_markdown(_text_of(file))


def _plain(file: Path) -> Iterator[Document]:
    yield Document(_text_of(file))


def _table(file: Path) -> Iterator[Document]:
    """Each row as "column: value; column: value", so that it is understood without its head."""
    text = _text_of(file)
    try:
        dialect: csv.Dialect | type[csv.Dialect] = csv.Sniffer().sniff(text[:8192], ",;\t|")
    except csv.Error:
        dialect = csv.excel
    try:
        head, *rows = csv.reader(io.StringIO(text), dialect)
    except csv.Error as error:
        raise InvalidInput("the table has a value that is too long") from error
    except ValueError:
        return  # not even a head
    lines = (
        "; ".join(f"{name}: {value}" for name, value in zip(head, row, strict=False) if value)
        for row in rows or [head]
    )
    yield Document("\n".join(lines))


SECTION_READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".pdf": _pdf,
    ".docx": _docx,
    ".html": _html,
    ".htm": _html,
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _plain,
    ".csv": _table,
}


def _of_html(html: str) -> Iterator[Document]:
    from markdownify import MarkdownConverter

    page = BeautifulSoup(html, "html.parser")
    for tag in page.find_all(INVISIBLE_TAGS):
        tag.decompose()
    converter = MarkdownConverter(
        heading_style="ATX",
        strip=["a", "img"],
        escape_asterisks=False,
        escape_underscores=False,
        table_infer_header=True,
    )
    yield from _of_markdown(_clean(converter.convert_soup(page)))


def _of_markdown(text: str) -> Iterator[Document]:
    for section in MarkdownHeaderTextSplitter(HEADINGS).split_text(text):
        headings = [section.metadata[level] for _, level in HEADINGS if level in section.metadata]
        metadata = {"heading": " › ".join(headings)} if headings else {}
        yield Document(section.page_content, metadata=metadata)


def _text_of(file: Path) -> str:
    """The text of a file in UTF-8, in UTF-16 with a mark, or in GB 18030 where it is Chinese."""
    data = file.read_bytes()
    for begins, what in BEGINS.items():
        if data.startswith(begins):
            raise InvalidInput(f"by its content it is {what}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = _chinese(data)
    if len(NOT_TEXT.findall(text[:100_000])) > UNREADABLE_SHARE * len(text[:100_000]):
        raise InvalidInput("its bytes are no text")
    return _clean(text)


def _chinese(data: bytes) -> str:
    """Decode GB 18030; nearly any bytes are valid in it, so most of it must be Chinese."""
    refusal = InvalidInput("its bytes are no text in UTF-8; save it as UTF-8")
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        raise refusal from None
    foreign = [each.encode("gb18030") for each in text[:100_000] if not each.isascii()]
    if sum(map(_is_common, foreign)) < COMMON_SHARE * len(foreign):
        raise refusal
    return text


def _is_common(code: bytes) -> bool:
    """Return whether a code is GB 2312's punctuation or one of its 3,755 first-level characters."""
    return len(code) == 2 and 0xA1 <= code[0] <= 0xD7 and code[1] >= 0xA1


def _clean(text: str) -> str:
    return NOT_TEXT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _beginning(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(1024)
