"""The texts of the pages, in the person's language.

Each `*.yaml` beside this file is a language. `say` takes a key and the language of the request; a
label of gradio's takes `app.ui.labels.text`, which the browser fills in. A person's language is the
chosen one, kept in a cookie, else the browser's.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Protocol

from starlette.requests import cookie_parser

from app.texts.languages import COOKIE, DEFAULT, LOWER_FLOOR_AREAS, read_texts
from engine.errors import BurnishError

__all__ = [
    "COOKIE",
    "DEFAULT",
    "LANGUAGES",
    "catalogue",
    "error_text",
    "language_for",
    "language_of",
    "page_texts",
    "say",
    "toast",
    "translated",
    "whole_key",
]
_TEXTS = read_texts(resources.files(__name__))
LANGUAGES = {name: _TEXTS.say("common.language_name", name) for name in _TEXTS.languages}


class HasHeaders(Protocol):
    """A request of gradio's or of starlette's."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers, by name in lower case."""


def page_texts() -> dict[str, dict[str, str]]:
    """Return the texts of the pages by language and key, without those of the lower floors."""
    return {
        language: {k: said for k, said in texts.items() if not k.startswith(LOWER_FLOOR_AREAS)}
        for language, texts in _TEXTS.languages.items()
    }


def say(key: str, language: str, **values: object) -> str:
    """Return a text in a language, its placeholders filled with `values`; the key must be known."""
    return _TEXTS.say(whole_key(key), language, **values)


def catalogue(language: str, area: str) -> dict[str, str]:
    """Return the texts of an area by their keys within it, for a page's script."""
    return _TEXTS.catalogue(language, area)


def language_of(accept_language: str | None, cookie: str | None = None) -> str:
    """Return a person's language, from the Accept-Language header and the cookie `COOKIE`."""
    return _TEXTS.language_of(accept_language, cookie)


def language_for(request: HasHeaders) -> str:
    """Return the language of the person behind a request."""
    cookies = cookie_parser(request.headers.get("cookie", ""))
    return language_of(request.headers.get("accept-language"), cookies.get(COOKIE))


def translated(sentence: str, language: str) -> str:
    """Translate a sentence of a lower floor (a state, a verdict); unchanged if it is unknown."""
    return _TEXTS.translated(sentence, language) or sentence


def error_text(error: BurnishError, language: str) -> str:
    """Translate an error's sentence; an unknown one is quoted in English, marked as an error."""
    sentence = str(error)
    found = _TEXTS.translated(sentence, language)
    return found or _TEXTS.say("common.error", language, sentence=sentence)


def toast(key: str, request: HasHeaders) -> str:
    """Return a toast's text in the language of a request."""
    return say(key, language_for(request))


def whole_key(key: str) -> str:
    """Return a key with its area, which the chat page omits."""
    if "." in key:
        return key
    return f"reasons.{key.removeprefix('reason_')}" if key.startswith("reason_") else f"chat.{key}"
