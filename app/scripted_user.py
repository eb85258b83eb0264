"""The demo's scripted user, who wants one or two complete sentences: pure functions of text."""

from __future__ import annotations

import re

USER = "scripted-user"
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


def sentences(text: str) -> list[str]:
    """Return the complete sentences of a text, without what follows the last full stop."""
    ends = [match.end() for match in _SENTENCE_END.finditer(_LIST_MARK.sub("", text))]
    plain = _LIST_MARK.sub("", text)
    return [plain[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)]


def is_liked(text: str, ended: bool) -> bool:
    """Whether the model ended by itself, after one or two complete sentences and no list."""
    text = text.strip()
    whole = bool(text) and text[-1] in ".!?"
    return ended and whole and not _LIST_MARK.search(text) and 1 <= len(sentences(text)) <= 2


def first_sentence(text: str) -> str | None:
    """Return the first sentence, the user's correction; None if no sentence is complete."""
    found = sentences(text)
    return found[0] if found and not _LIST_MARK.match(text) else None
