"""Records out of a file: JSON lines, one JSON array, or CSV, told apart by their first character.

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
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from engine.errors import InvalidInput
from feedback_store.formats.fields import Row

MAX_RECORD = 16_000_000  # bytes of a line, characters of an array's element
CHUNK = 1 << 20
BLANKS = re.compile(r"[ \t\n\r]*")
NOT_UTF8 = "is not UTF-8 text"
TOO_LONG = f"is longer than {MAX_RECORD:,} characters, or is not JSON"


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where it stands ("line 3"), or why it is none."""

    place: str
    row: Row | None = None
    problem: str = ""


def read_records(file: Path) -> Iterator[Record]:
    """All records of a file in UTF-8, with or without a byte order mark.

    Raises `InvalidInput` where the file cannot be opened or read.
    """
    try:
        if not file.is_file():
            raise InvalidInput(f"cannot read {file}: there is no such file")
        with file.open("rb") as stream:
            start = stream.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
            stream.seek(0)
            if start.startswith(b"["):
                yield from _array(_text(stream))
            elif _begins_csv(start):
                yield from _csv(_text(stream))
            else:
                yield from _lines(stream)
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from error


def _text(stream: BinaryIO) -> TextIO:
    """The text, line ends as they are; bytes that are not UTF-8 become lone surrogates."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


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
            yield Record(f"line {number}", problem=TOO_LONG)
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
            match = BLANKS.match(self._text, self._at)
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
                    raise ValueError(TOO_LONG) from None
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
    """What is wrong, without a word of the file's text."""
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg}"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return str(error) if str(error) == TOO_LONG else "holds a number with too many digits"


# CSV


def _begins_csv(start: bytes) -> bool:
    """Whether the first line holds names alone, as `csv_files` writes them."""
    header = start.split(b"\n", 1)[0].replace(b'"', b"").strip()
    return re.fullmatch(rb"\w+(,\w+)+", header) is not None


def _csv(stream: TextIO) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD)  # the module's own 128 KiB is shorter than a long answer
    rows = csv.reader(stream, strict=True)
    header = next(rows)
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
