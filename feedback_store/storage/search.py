"""Full-text search: the terms of a search, and the index over questions, answers and titles.

One function, `search_terms`, prepares texts and queries alike, so that SQLite (FTS5) and PostgreSQL
(GIN over a tsvector) find the same: neither database's own parser sees a text. Each term begins
with a key of its person, so that other people's rows cost a search nothing. Hits come newest first
from the index itself, a batch at a time: of a common word not all are read. Knows tables; knows
nothing of titles and branches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, delete, insert, select, text

from engine.excerpts import cut_at_word
from engine.messages import clean_text
from engine.storage import digest_json
from feedback_store.storage import tables as t

MAX_WORD_CHARS = 64  # of a longer word only the beginning counts, in texts and in queries
MAX_DOCUMENT_BYTES = 900_000  # of terms; a tsvector holds 1 MiB
MAX_QUERY_CHARS = 1_000
MAX_QUERY_TERMS = 64
# A beginning of one letter is that of too many words: it took 70 ms among 100,000 texts
MIN_PREFIX_CHARS = 2
KEY_CHARS = 8  # two people with the same key are told apart by the rows
MAX_BATCH = 5_000
MAX_EXCERPT_CHARS = 160
BEFORE_HIT_CHARS = 40
# Written without spaces between words: Thai, Lao, Myanmar, Khmer; Hangul; kana, bopomofo, Han
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u1100-\u11ff\uac00-\ud7ff"
    "\u3005-\u3007\u3040-\u30ff\u3100-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
RUN = re.compile(f"[{UNSPACED}]+|[^{UNSPACED}]+")
IS_UNSPACED = re.compile(f"[{UNSPACED}]")
NEWEST = {
    "sqlite": "SELECT rowid FROM search_index WHERE search_index MATCH :query"
    " AND rowid < :before ORDER BY rowid DESC LIMIT :count",
    "postgresql": "SELECT id FROM search_documents WHERE terms @@ CAST(:query AS tsquery)"
    " AND id < :before ORDER BY id DESC LIMIT :count",
}
END = 2**62  # above every document's id


class _Separators(dict[int, int]):
    """The table of `str.translate` with a space for everything but letters, marks and digits."""

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        return self[code]


SEPARATORS = _Separators()


@dataclass(frozen=True, slots=True)
class Query:
    """Terms that must all occur and, if a word is still being typed, how one more begins."""

    terms: tuple[str, ...]
    prefix: str
    words: tuple[str, ...]  # as a text has them, for `excerpt`


@dataclass(frozen=True, slots=True)
class Hit:
    """The newest text of a conversation in which all terms occur; a title has neither id."""

    conversation_id: str
    turn_id: str | None
    answer_id: str | None


# Terms


def search_terms(text: str) -> str:
    """The distinct terms of a text, in its order, with spaces between them.

    Words of lower-cased NFKC text. A run of a script without spaces gives each character and each
    two neighbours, so that any part of it is found.
    """
    terms: dict[str, None] = {}
    for run in _runs(_separated(text)):
        if IS_UNSPACED.match(run):
            for at in range(len(run)):
                terms[run[at]] = terms[run[at : at + 2]] = None
        else:
            terms[run[:MAX_WORD_CHARS]] = None
    return " ".join(terms)


def parse_query(words: str) -> Query | None:
    """Parse a search; None where it has no word.

    A last word in letters counts as a beginning, unless something follows it. Raises `InvalidText`
    for a text that is too long or none.
    """
    separated = _separated(clean_text(words, what="search", limit_chars=MAX_QUERY_CHARS))
    runs = list(_runs(separated))
    if not runs:
        return None
    last, prefix = runs[-1], ""
    typed = not separated.endswith(" ") and MIN_PREFIX_CHARS <= len(last) <= MAX_WORD_CHARS
    if typed and not IS_UNSPACED.match(last):
        prefix = last
    terms: dict[str, None] = {}
    for run in runs[:-1] if prefix else runs:
        if len(run) > 1 and IS_UNSPACED.match(run):
            terms.update(dict.fromkeys(run[at : at + 2] for at in range(len(run) - 1)))
        else:
            terms[run[:MAX_WORD_CHARS]] = None
    return Query(tuple(terms)[:MAX_QUERY_TERMS], prefix, tuple(dict.fromkeys(runs)))


def document_terms(text: str, user_id: str) -> str:
    """The terms of a person's text as the index has them: as many as it can hold."""
    key = person_key(user_id)
    terms: list[str] = []
    room = MAX_DOCUMENT_BYTES
    for term in search_terms(text).split():
        room -= len(key) + len(term.encode())
        if room < 0:
            break
        terms.append(key + term)
    return " ".join(terms)


@lru_cache(maxsize=10_000)
def person_key(user_id: str) -> str:
    """The key that each term of a person begins with."""
    return digest_json(["searches", user_id])[7 : 7 + KEY_CHARS]


def _separated(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower().translate(SEPARATORS)


def _runs(separated: str) -> Iterator[str]:
    """Words, cut where a script with spaces and one without meet. A mark alone is no word."""
    for word in separated.split():
        for run in RUN.findall(word):
            if any(map(str.isalnum, run)):
                yield run


# The index


def add_document(
    connection: Connection,
    conversation_id: str,
    user_id: str,
    said: str,
    *,
    turn_id: str | None = None,
    answer_id: str | None = None,
) -> None:
    """Index a question, an answer or a title, in the place of an older form of it."""
    documents = t.search_documents.c
    connection.execute(
        delete(t.search_documents).where(
            documents.conversation_id == conversation_id,
            documents.turn_id.is_not_distinct_from(turn_id),
            documents.answer_id.is_not_distinct_from(answer_id),
        )
    )
    row = document_row(conversation_id, user_id, said, turn_id=turn_id, answer_id=answer_id)
    if row["terms"]:
        connection.execute(insert(t.search_documents).values(row))


def document_row(
    conversation_id: str,
    user_id: str,
    said: str,
    *,
    turn_id: str | None = None,
    answer_id: str | None = None,
) -> dict[str, Any]:
    """A row of the index."""
    return {
        "conversation_id": conversation_id,
        "turn_id": turn_id,
        "answer_id": answer_id,
        "terms": document_terms(said, user_id),
    }


def newest_hits(connection: Connection, user_id: str, query: Query, limit: int) -> list[Hit]:
    """One hit in each of the `limit` conversations of a person with the newest hits."""
    dialect = connection.dialect.name
    statement = text(NEWEST[dialect])
    match = EXPRESSIONS[dialect](query, person_key(user_id))
    found: dict[str, Hit] = {}
    before, count = END, min(4 * limit, MAX_BATCH)
    while len(found) < limit:
        page = {"query": match, "before": before, "count": count}
        ids = connection.execute(statement, page).scalars().all()
        for hit in _listed(connection, user_id, ids):
            found.setdefault(hit.conversation_id, hit)
        if len(ids) < count:
            break
        before, count = ids[-1], min(2 * count, MAX_BATCH)  # few conversations with many hits
    return list(found.values())[:limit]


def read_hits(connection: Connection, hits: Sequence[Hit]) -> dict[str, str]:
    """Read the texts of questions and answers that were found, by turn and by answer."""
    asked = select(t.turns.c.id, t.turns.c.question).where(
        t.turns.c.id.in_([hit.turn_id for hit in hits if hit.turn_id])
    )
    given = select(t.answers.c.id, t.answers.c.text).where(
        t.answers.c.id.in_([hit.answer_id for hit in hits if hit.answer_id])
    )
    rows = [*connection.execute(asked), *connection.execute(given)]
    return {row[0]: row[1] for row in rows}


def _listed(connection: Connection, user_id: str, ids: Sequence[int]) -> list[Hit]:
    """The documents that are in a person's list, newest first.

    Two queries by key: as one, SQLite went through all conversations of the person (7 s).
    """
    documents, listed = t.search_documents.c, t.conversations.c
    found = (
        select(documents.conversation_id, documents.turn_id, documents.answer_id)
        .where(documents.id.in_(ids))
        .order_by(documents.id.desc())
    )
    hits = [Hit(*row) for row in connection.execute(found)]
    query = select(listed.id, listed.user_id, listed.deleted_at)
    rows = connection.execute(query.where(listed.id.in_({hit.conversation_id for hit in hits})))
    own = {row.id for row in rows if row.user_id == user_id and row.deleted_at is None}
    return [hit for hit in hits if hit.conversation_id in own]


def _fts5(query: Query, key: str) -> str:
    """The query for FTS5's MATCH. Terms hold no quotes: they are letters, marks and digits."""
    begins = [f'"{key}{query.prefix}" *'] if query.prefix else []
    return " AND ".join([*(f'"{key}{term}"' for term in query.terms), *begins])


def _tsquery(query: Query, key: str) -> str:
    """The query as PostgreSQL reads a tsquery."""
    begins = [f"'{key}{query.prefix}':*"] if query.prefix else []
    return " & ".join([*(f"'{key}{term}'" for term in query.terms), *begins])


EXPRESSIONS: Mapping[str, Any] = {"sqlite": _fts5, "postgresql": _tsquery}


# The excerpt of a hit


def excerpt(said: str, query: Query) -> str:
    """The text around its first hit, white space collapsed, in at most 160 characters."""
    flat = " ".join(said.split())
    hit = _pattern(query.words).search(flat)
    begin = max(0, (hit.start() if hit else 0) - BEFORE_HIT_CHARS)
    if begin:  # at a word, if one begins before the hit
        begin = flat.find(" ", begin, begin + BEFORE_HIT_CHARS) + 1 or begin
    room = MAX_EXCERPT_CHARS - (begin > 0)
    if len(flat) - begin <= room:
        return "…" * (begin > 0) + flat[begin:]
    return "…" * (begin > 0) + cut_at_word(flat[begin:], room)


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Any of the words: at a word's beginning, or anywhere in scripts without spaces."""
    found = (
        re.escape(word) if IS_UNSPACED.match(word) else rf"(?<![^\W_]){re.escape(word)}"
        for word in words
    )
    return re.compile("|".join(found), re.IGNORECASE)
