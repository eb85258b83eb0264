"""Records of a file: JSON lines, one JSON array, or CSV, recognised by its first bytes.

One record is in memory at a time. What cannot be read is a record with a problem, so that the
reading goes on where it can. Knows nothing of what the records mean.

The array is taken apart by the standard library's own decoder, one element at a time. ijson, the
usual library for this, was tried (3.6): its fast backend turns lone surrogates into question marks
and stops at integers over 64 bits, and a deeply nested file fills the memory.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TextIO

from engine.errors import InvalidInput
from feedback_store.formats.fields import RawRow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RECORD = 16_000_000  # bytes of a line, characters of an array's element
CHUNK = 1 << 20
START = 4096  # bytes by which the layout is told
JSON_BLANKS = re.compile(r"[ \t\n\r]*")
# What stands between the cells of a CSV file, and its name
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
HEADER_NAME = re.compile(r' *("?)\w[\w .()/-]*\1 *')
NO_UTF8 = b"\xff"
NOT_UTF8 = "is not UTF-8 text"
RECORD_TOO_LONG = f"is longer than {MAX_RECORD:,} characters, or is not JSON"


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where it stands ("line 3"), or why it is none."""

    place: str
    row: RawRow | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FileLayout:
    """The layout of a file: its encoding, and the delimiter of a CSV file."""

    kind: Literal["JSON lines", "JSON array", "CSV"]
    encoding: Literal["UTF-8", "UTF-16"] = "UTF-8"
    delimiter: str = ","
    blank_after: bool = False  # the delimiter has a blank after it, which is none of the cell's

    def __str__(self) -> str:
        between = f", cells between {DELIMITERS[self.delimiter]}" if self.kind == "CSV" else ""
        blank = " and blanks" if self.blank_after else ""
        return f"{self.kind} in {self.encoding}{between}{blank}"


def layout_of(file: Path) -> FileLayout:
    """The layout of a file; raises `InvalidInput` where it cannot be opened or read."""
    with _opened(file) as stream:
        return _layout(stream.read(START))


def read_records(file: Path) -> Iterator[Record]:
    """All records of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises `InvalidInput` where the file cannot be opened or read.
    """
    layout = layout_of(file)
    with _opened(file) as raw:
        stream = raw if layout.encoding == "UTF-8" else io.BufferedReader(_Utf8(raw))
        if layout.kind == "JSON array":
            yield from _array(_text(stream))
        elif layout.kind == "CSV":
            yield from _csv(_text(stream), layout)
        else:
            yield from _lines(stream)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """The file's bytes; what goes wrong while they are read is said as `InvalidInput`."""
    try:
        if not file.is_file():
            raise InvalidInput(f"cannot read {file}: there is no such file")
        with file.open("rb") as stream:
            yield stream
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from error


def _layout(start: bytes) -> FileLayout:
    """The layout of a file that begins so."""
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding: Literal["UTF-8", "UTF-16"] = "UTF-16" if is_utf16 else "UTF-8"
    text = start.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace").lstrip()
    if text.startswith("["):
        return FileLayout("JSON array", encoding)
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    for delimiter in DELIMITERS:
        names = header.split(delimiter)
        if len(names) > 1 and all(HEADER_NAME.fullmatch(name) for name in names):
            blank_after = all(name.startswith(" ") for name in names[1:])
            return FileLayout("CSV", encoding, delimiter, blank_after)
    return FileLayout("JSON lines", encoding)


def _text(stream: BinaryIO) -> TextIO:
    """The text, line ends as they are; bytes that are not UTF-8 become lone surrogates."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Utf8(io.RawIOBase):
    """Transcodes a UTF-16 stream to UTF-8; invalid text stays invalid."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        self._rest = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer; 0 at the end."""
        view = memoryview(buffer)
        while not self._rest and (raw := self._stream.read(CHUNK)):
            self._rest = self._decoder.decode(raw).encode("utf-8", "surrogatepass")
        if not self._rest and self._decoder.getstate()[0]:  # half a character at the end
            self._decoder.reset()
            self._rest = NO_UTF8
        taken, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(taken)] = taken
        return len(taken)


# JSON


class _Decoder:
    """The standard decoder, which takes NaN and Infinity for numbers; JSON has neither."""

    def __init__(self) -> None:
        self._constants: list[str] = []
        self._decoder = json.JSONDecoder(parse_constant=self._constants.append)

    def decode(self, text: str, at: int, place: str) -> tuple[Record, int]:
        """The value that begins at a character, and the place after it.

        Raises what the standard decoder raises.
        """
        self._constants.clear()
        value, end = self._decoder.raw_decode(text, at)
        if self._constants:
            return Record(place, problem=f"holds {self._constants[0]}, which is not JSON"), end
        if not isinstance(value, dict):
            return Record(place, problem="is not a JSON object"), end
        return Record(place, value), end


def _lines(stream: BinaryIO) -> Iterator[Record]:
    decoder, number = _Decoder(), 0
    while line := stream.readline(MAX_RECORD):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) == MAX_RECORD and not line.endswith(b"\n"):
            while (rest := stream.readline(CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield Record(f"line {number}", problem=RECORD_TOO_LONG)
        elif line and not line.isspace():
            yield _line(decoder, line, f"line {number}")


def _line(decoder: _Decoder, line: bytes, place: str) -> Record:
    try:
        text = line.decode("utf-8").strip()
        record, end = decoder.decode(text, 0, place)
    except UnicodeDecodeError:
        return Record(place, problem=NOT_UTF8)
    except (ValueError, RecursionError) as error:
        return Record(place, problem=_reason(error))
    return record if end == len(text) else Record(place, problem="has text after the JSON value")


def _array(stream: TextIO) -> Iterator[Record]:
    """Elements of an array. What is not JSON ends the reading: where it goes on, nobody knows."""
    window, decoder, number = _Window(stream), _Decoder(), 0
    window.take("[")
    separator = "]" if window.next() == "]" else ","
    while separator == ",":
        number += 1
        place = f"record {number}"
        try:
            yield window.element(decoder, place)
        except (ValueError, RecursionError) as error:
            yield Record(place, problem=_reason(error))
            return
        if (separator := window.next()) == ",":
            window.take(",")
    if separator != "]":
        yield Record(f"after record {number}", problem="a comma or the array's end is missing")
        return
    window.take("]")
    if window.next():
        yield Record(f"after record {number}", problem="text goes on after the array")


class _Window:
    """The piece of a long text that is being read; it grows until an element fits."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0

    def next(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            match = JSON_BLANKS.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def take(self, character: str) -> None:
        """Go on behind a character that is known to be next."""
        assert self.next() == character
        self._at += 1

    def element(self, decoder: _Decoder, place: str) -> Record:
        """The next value, read on until it is whole."""
        self.next()
        while True:
            try:
                record, end = decoder.decode(self._text, self._at, place)
                break
            except json.JSONDecodeError:
                if len(self._text) - self._at > MAX_RECORD:
                    raise ValueError(RECORD_TOO_LONG) from None
                if not self._grow():
                    raise
        raw, self._at = self._text[self._at : end], end
        return record if _is_utf8(raw) else Record(place, problem=NOT_UTF8)

    def _grow(self) -> bool:
        """Read on, twice as much each time, so that a long element is not tried too often."""
        more = self._stream.read(max(CHUNK, len(self._text) - self._at))
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _reason(error: ValueError | RecursionError) -> str:
    """The reason of an error, without a word of the file's text."""
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg}"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return str(error) if str(error) == RECORD_TOO_LONG else "holds a number with too many digits"


# CSV


def _csv(stream: TextIO, layout: FileLayout) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD)  # the module's own 128 KiB is shorter than a long answer
    rows = csv.reader(
        stream, delimiter=layout.delimiter, skipinitialspace=layout.blank_after, strict=True
    )
    header = [name.strip() for name in next(filter(None, rows))]
    line = rows.line_num + 1
    try:
        for cells in rows:
            if cells:
                yield _csv_record(header, cells, f"line {line}")
            line = rows.line_num + 1
    except csv.Error as error:
        yield Record(f"line {line}", problem=f"is not CSV: {error}")


def _csv_record(header: list[str], cells: list[str], place: str) -> Record:
    if len(cells) != len(header):
        return Record(place, problem=f"has {len(cells)} cells; the header has {len(header)}")
    if not _is_utf8("".join(cells)):
        return Record(place, problem=NOT_UTF8)
    return Record(place, dict(zip(header, cells, strict=True)))
