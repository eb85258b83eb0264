"""Extracts the files of conversations from an uploaded zip without trusting its headers.

A zip bomb is small but unpacks to more than the disk holds, or lists more members than fit into
memory. So sizes and members are counted while reading.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from pathlib import Path

from engine.errors import InvalidInput
from engine.private_files import create_private

MAX_UNPACKED_BYTES = 2**30
MAX_DIRECTORY_BYTES = 2**24  # of the central directory: about 200,000 members
ZIP_BEGINS = b"PK"
# The end-of-central-directory record: a signature, then the size of the directory among others, and
# a comment of at most 65,535 bytes (APPNOTE.TXT, 4.3.16)
ENDS = b"PK\x05\x06"
END_BYTES, MAX_COMMENT_BYTES = 22, 65_535
# The ZIP64 locator before it, if there are more than 65,535 members
ENDS_ZIP64, ZIP64_BYTES = b"PK\x06\x07", 20
# One file, or several of a split export
MEMBER = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)


def unpacked(file: Path) -> list[Path]:
    """Return the file itself if it is no zip, else its files of conversations, unpacked beside it.

    Raises `InvalidInput` for a zip that has none, is damaged, needs a password or is a bomb.
    """
    with file.open("rb") as stream:
        if stream.read(len(ZIP_BEGINS)) != ZIP_BEGINS:
            return [file]
    if _is_crowded(file):
        raise InvalidInput("the zip file has too many files in it")
    try:
        with zipfile.ZipFile(file) as archive:
            return _extracted(archive, file.parent)
    except DAMAGED as error:
        raise InvalidInput("the zip file is damaged, or needs a password") from error


def _is_crowded(file: Path) -> bool:
    """Return whether a zip's central directory, which `zipfile` reads as a whole, is too long."""
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - ZIP64_BYTES - END_BYTES - MAX_COMMENT_BYTES))
        tail = stream.read()
    at = tail.rfind(ENDS)
    if at < 0 or len(tail) - at < END_BYTES:
        return False  # no such record: `zipfile` will report that
    if tail[: max(0, at)][-ZIP64_BYTES:].startswith(ENDS_ZIP64):
        return True
    (directory_bytes,) = struct.unpack_from("<L", tail, at + 12)
    return bool(directory_bytes > MAX_DIRECTORY_BYTES)


def _extracted(archive: zipfile.ZipFile, folder: Path) -> list[Path]:
    members = [each for each in archive.infolist() if MEMBER.fullmatch(each.filename)]
    members = [each for each in members if not each.filename.startswith("__MACOSX/")]
    if not members:
        raise InvalidInput("the zip file has no conversations.json in it")
    room = MAX_UNPACKED_BYTES
    files = []
    for number, member in enumerate(sorted(members, key=lambda each: each.filename)):
        target = folder / str(number) / Path(member.filename).name
        target.parent.mkdir(mode=0o700)
        create_private(target)
        with archive.open(member) as source, target.open("wb") as copy:
            while piece := source.read(2**20):
                room -= len(piece)
                if room < 0:
                    limit = MAX_UNPACKED_BYTES
                    raise InvalidInput(f"the conversations have more than {limit} bytes unpacked")
                copy.write(piece)
        files.append(target)
    return files
