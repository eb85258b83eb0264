"""Reads a file into a folder of passages and indices, in a process of its own with limits.

A file may come from anywhere: a zip bomb, a page that nests a million times, a document that keeps
a parser busy for hours. The child process has bounds on time and memory and takes the server's
interpreter no time; its parent waits, and says in one sentence why a file is refused. The child is
`python -m feedback_store.documents.reading FILE NAME FOLDER`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInput

MAX_FILE_BYTES = 50 * 2**20
MAX_TEXT_CHARS = 5_000_000  # about 1,500 pages
READING_SECONDS = 60  # of computing; waiting for a busy machine does not count
MOST_WAITING_SECONDS = 300  # waiting included
READING_BYTES = 1536 * 2**20  # of address space; numpy alone maps some 500 MB
PASSAGES, WORDS, GRAMS = "passages.jsonl", "words.npz", "grams.npz"
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each maps memory of its own


@dataclass(frozen=True, slots=True)
class TextCounts:
    """The amount of text in a document."""

    passages: int
    characters: int


def index_file(file: Path, name: str, folder: Path) -> TextCounts:
    """Write the passages and indices of a file into a folder.

    Raises `InvalidInput` for a file that cannot be read within the limits.
    """
    if file.stat().st_size > MAX_FILE_BYTES:
        raise InvalidInput(f"{name} has more than {MAX_FILE_BYTES // 2**20} MB; split it")
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__, str(file), name, str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MOST_WAITING_SECONDS,
            env={**os.environ, **ONE_THREAD},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"{name} takes too long to read; split it") from None
    if done.returncode < 0:
        raise InvalidInput(f"{name} takes too long to read, or too much memory; split it")
    if done.returncode > 0:
        raise InvalidInput(f"{name} is damaged: nothing could be read")
    said = json.loads(done.stdout)
    if "refused" in said:
        raise InvalidInput(said["refused"])
    return TextCounts(**said)


def _write_index(file: Path, name: str, folder: Path) -> dict[str, int]:
    from engine.prompts.terms import tokens
    from feedback_store.documents.passages import cut_into_passages, searched_text
    from feedback_store.documents.sections import read_sections
    from feedback_store.documents.term_index import TermIndex, character_grams

    sections = read_sections(file, name)
    characters = sum(len(section.page_content) for section in sections)
    if characters > MAX_TEXT_CHARS:
        raise InvalidInput(f"{name} has more than {MAX_TEXT_CHARS:,} characters; split it")
    passages = cut_into_passages(sections)
    with (folder / PASSAGES).open("w", encoding="utf-8") as stream:
        for passage in passages:
            row = {"text": passage.page_content, **passage.metadata}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    searched = [searched_text(passage) for passage in passages]
    TermIndex.of(map(tokens, searched)).save(folder / WORDS)
    TermIndex.of(map(character_grams, searched)).save(folder / GRAMS)
    return {"passages": len(passages), "characters": characters}


def main(file: str, name: str, folder: str) -> None:
    """Index a file under the limits and print what came of it, as one JSON document."""
    resource.setrlimit(resource.RLIMIT_AS, (READING_BYTES, READING_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (READING_SECONDS, READING_SECONDS))
    try:
        said: dict[str, object] = dict(_write_index(Path(file), name, Path(folder)))
    except InvalidInput as error:
        said = {"refused": str(error)}
    except MemoryError:
        said = {"refused": f"{name} takes too much memory to read; split it"}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:4])
