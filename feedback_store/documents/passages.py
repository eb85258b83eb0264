"""Cuts sections into passages of a few sentences, the unit of search and citation.

Knows texts; knows nothing of files and indices.
"""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter

# In bytes of UTF-8: some 170 English words or 300 Chinese characters, either about 220 tokens
PASSAGE_BYTES = 1_000
# Where to cut, the best first: paragraphs, lines, ends of sentences, clauses, words
CUTS = [r"\n\n+", r"\n", r"(?<=[。！？…])|(?<=[.!?])\s+", r"(?<=[；，、;,:])", r"\s", ""]


def cut_into_passages(sections: Iterable[Document]) -> list[Document]:
    """Return the passages of sections, in order; each has the metadata of its section."""
    splitter = RecursiveCharacterTextSplitter(
        CUTS,
        keep_separator="end",
        is_separator_regex=True,
        chunk_size=PASSAGE_BYTES,
        chunk_overlap=0,
        length_function=_bytes,
    )
    return splitter.split_documents(sections)


def searched_text(passage: Document) -> str:
    """The text by which a passage is found: its heading and its words."""
    return f"{passage.metadata.get('heading', '')}\n{passage.page_content}"


def _bytes(text: str) -> int:
    return len(text.encode())
